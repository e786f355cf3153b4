//! Calibrates fusions under the rule.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{call_in, directory};
use crate::recipes::letters;

const RECIPE: &str = r#"
[data]
text = "a.jsonl"
held_out_every = 5
tokenizer = "words"
input_length = 32

[models.small]
d_model = 8
num_heads = 2
d_kv = 4
d_ff = 16
num_layers = 1

[pretraining]
model = "small"
steps = 2
batch_size = 8
evaluation_batches = 1
schedule = { peak = 0.01, decay = { kind = "constant" } }

[stages.words]
kind = "tokenizer"
vocabulary = 300

[stages.a]
kind = "pretrain"
seed = 1

[stages.b]
kind = "pretrain"
seed = 2
"#;

/// Every document contains one word for each letter.
fn documents() -> String {
    letters()
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| format!("{{\"text\": \"{}\"}}\n", line.repeat(4)))
        .collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("written")).expect("JSON")
}

#[test]
fn a_recipe_and_the_command_fit_the_same_child() {
    let fuse = "\n[stages.ab]\nkind = \"fuse\"\nparents = [\"a\", \"b\"]\nnorm = \"rule\"\ncalibrate_examples = 64\n";
    let folder = directory(&[("recipe.toml", &format!("{RECIPE}{fuse}")), ("a.jsonl", &documents())]);
    let called = call_in(folder.path(), &["run", "recipe.toml", "--output", "out"]);
    assert!(called.stderr.contains("ab: calibrated: "), "{}", called.stderr);
    called.success();
    let model = folder.path().join("out/ab/model");
    let lineage = json(&model.join("lineage.json"));
    let calibration = &lineage["fusion"]["calibration"];
    let of = |when: &str| calibration[when]["logits"].as_f64().expect("a deviation");
    assert!(of("after") < of("before") && of("before") > 0.0, "{calibration}");
    assert_eq!(calibration["examples"], 64);
    let config = json(&model.join("config.json"));
    assert_eq!((&config["model_type"], &config["rms_norm_groups"]), (&"t5".into(), &Value::Null));
    let again = call_in(folder.path(), &["run", "recipe.toml", "--output", "out"]);
    assert!(again.stderr.contains("ab: finished before"), "{}", again.stderr);

    let command = |more: &[&str]| {
        let fuse = ["fuse", "out/a/model", "out/b/model", "--overwrite", "--output", "child"];
        call_in(folder.path(), &[&fuse, more].concat())
    };
    let fitted = ["--norm", "rule", "--calibrate", "a.jsonl", "--calibrate-examples", "64"];
    let shorter = [&fitted[..], &["--calibrate-input-length", "32"]].concat();
    command(&shorter).success();
    let own = json(&folder.path().join("child/lineage.json"));
    let (before, after) = (&own["fusion"]["calibration"]["before"], &own["fusion"]["calibration"]["after"]);
    assert!(after["logits"].as_f64() < before["logits"].as_f64(), "{before} {after}");
    let hash = own["blake3"].clone();
    command(&shorter).success();
    assert_eq!(
        json(&folder.path().join("child/lineage.json"))["blake3"],
        hash,
        "the same text gives the same child"
    );

    let long = command(&[&fitted[..], &["--calibrate-input-length", "4000"]].concat()).failure();
    let property = command(&fitted[2..]).failure();
    let carried = command(&[&shorter[..], &["--optimizer", "carry"]].concat()).failure();
    let nowhere = command(&["--norm", "rule", "--calibrate", "b.txt"]).failure();
    let all = [long, property, carried, nowhere].concat();
    insta::assert_snapshot!(all.replace(folder.path().to_str().expect("UTF-8"), "DIR"));
    assert_eq!(
        json(&folder.path().join("child/lineage.json"))["blake3"],
        hash,
        "what was there is still there"
    );
}

#[test]
fn recipes_that_cannot_be_calibrated_are_refused() {
    let refused = |more: &str| {
        let fuse = format!("\n[stages.ab]\nkind = \"fuse\"\nparents = [\"a\", \"b\"]\n{more}");
        let folder = directory(&[("recipe.toml", &format!("{RECIPE}{fuse}")), ("a.jsonl", &documents())]);
        call_in(folder.path(), &["run", "recipe.toml", "--dry-run"]).failure()
    };
    let property = refused("calibrate_examples = 8\n");
    let none = refused("norm = \"rule\"\ncalibrate_examples = 0\n");
    insta::assert_snapshot!([property, none].concat());
}
