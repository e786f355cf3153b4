//! Stages that take models on the way of another stage's training.

use std::fs;
use std::path::Path;

use fusion_core::TensorSource;
use fusion_core::checkpoint::Checkpoint;
use serde_json::Value;

use crate::program::{Called, call_in, directory, text};
use crate::recipes::letters;

/// A trunk, and models that decay from it at two budgets, with the optimiser's state and without.
const RECIPE: &str = concat!(
    small_model!(),
    r#"
[pretraining]
batch_size = 2
evaluation_batches = 1
evaluate_every = 50
checkpoint_every = 4
keep_checkpoints = 1
learning_rate = 0.01
log_every = 1

[stages.words]
kind = "tokenizer"
vocabulary = 300

[stages.trunk]
kind = "pretrain"
model = "small"
steps = 20
schedule = "constant"
warm_up = 2
keep_optimizer = true

[stages.early]
kind = "pretrain"
from = "trunk@6"
steps = 4
schedule = "linear"
warm_up = 0
carry_optimizer = true

[stages.late]
kind = "pretrain"
from = "trunk@16"
steps = 4
schedule = { kind = "wsd", decay_share = 1 }
warm_up = 0

[stages.both]
kind = "fuse"
parents = ["trunk@6", "trunk@12"]
optimizer = "carry"

[stages.on]
kind = "pretrain"
from = "both"
computation = { of = "trunk@20", share = 1.2 }

[stages.score]
kind = "evaluate"
model = "trunk@12"
examples = 16

[stages.last]
kind = "evaluate"
model = "trunk@20"
examples = 16
"#
);

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("written")).expect("JSON")
}

fn run(folder: &Path, recipe: &str, more: &[&str]) -> Called {
    fs::write(folder.join("recipe.toml"), recipe).expect("written");
    call_in(folder, &[&["run", "recipe.toml", "--output", "out"], more].concat())
}

fn weights(model: &Path) -> Vec<(String, Vec<f32>)> {
    let checkpoint = Checkpoint::open(model).expect("a model");
    let names = checkpoint.names();
    names.into_iter().map(|name| (name.clone(), checkpoint.load_f32(&name).expect("weights").data)).collect()
}

#[test]
fn one_trunk_gives_models_at_several_budgets() {
    let folder = directory(&[("a.txt", &letters())]);
    let out = folder.path().join("out");
    let run = |recipe: &str, more: &[&str]| run(folder.path(), recipe, more);
    insta::assert_snapshot!("plan", run(RECIPE, &["--plan"]).success());
    run(RECIPE, &[]).success();
    let kept = |step: u64| out.join(format!("trunk/kept/step-{step:08}"));
    assert!([6, 12, 16].map(|step| kept(step).is_dir()).iter().all(|there| *there));
    assert!(!kept(20).exists(), "the last step's is the result");
    assert!(!out.join("trunk/checkpoints/step-00000012").exists(), "checkpoints come and go");

    // A training with the whole schedule goes the same way: 6 steps of the trunk and 4 to decay in.
    let whole = RECIPE.replace(
        "steps = 20\nschedule = \"constant\"",
        "steps = 10\nschedule = { kind = \"wsd\", decay_steps = 4 }",
    );
    let whole = whole.split("[stages.early]").next().expect("a part");
    fs::write(folder.path().join("whole.toml"), whole).expect("written");
    call_in(folder.path(), &["run", "whole.toml", "--output", "whole"]).success();
    let rates = |directory: &Path| -> Vec<f64> {
        let lines = fs::read_to_string(directory.join("metrics.jsonl")).expect("metrics");
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter_map(|line| line["learning_rate"].as_f64()).collect()
    };
    let (trunk, early) = (rates(&out.join("trunk")), rates(&out.join("early")));
    let expected: Vec<f64> = trunk[..6].iter().chain(&early).copied().collect();
    let found = rates(&folder.path().join("whole/trunk"));
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-15), "{found:?} for {expected:?}");
    assert_eq!(rates(&out.join("late")), rates(&out.join("early")));

    // What is behind a model is the trunk up to its step, once.
    let result = |stage: &str| json(&out.join(stage).join("stage.json"))["result"].take();
    let flops = |stage: &str, key: &str| result(stage)[key].as_f64().expect("a number");
    let each = flops("trunk", "flops") / 20.0;
    let close =
        |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-9, "{found} for {expected}");
    close(flops("early", "total_flops"), 10.0 * each);
    close(flops("late", "total_flops"), 20.0 * each);
    close(flops("on", "total_flops") - flops("on", "flops"), 12.0 * each);
    let left = 24.0 * each - flops("on", "total_flops");
    assert!(left >= 0.0 && left < flops("on", "flops") / result("on")["steps"].as_f64().expect("steps"));
    assert_eq!(json(&out.join("both/model/optimizer.json"))["step"], 6);

    // Models on the way are parents like others where weights are drawn, and texts are recorded.
    let drawn = call_in(folder.path(), &["report", "out", "--figures", "figures", "--html", "page.html"]);
    assert!(drawn.stderr.contains("weights-on"), "{}", drawn.stderr);
    let texts = json(&out.join("trunk/texts.json"));
    assert_eq!(texts[0]["bytes"], letters().len());
    let page = fs::read_to_string(folder.path().join("page.html")).expect("a page");
    assert!(page.contains(texts[0]["sha256"].as_str().expect("a hash")), "{texts}");

    // The command line takes such a model as any other, and keeps them as well.
    let from = kept(6);
    let common = ["--text", "a.txt", "--held-out-every", "5", "--input-length", "16", "--batch-size", "2"];
    let options = ["--evaluation-batches", "1", "--steps", "4", "--learning-rate", "0.01", "--warm-up", "0"];
    let own = ["--schedule", "linear", "--carry-optimizer", "--keep-steps", "2,3"];
    let start = ["pretrain", "--from", text(&from), "--output", "by-hand"];
    call_in(folder.path(), &[&start[..], &common, &options, &own].concat()).success();
    assert_eq!(weights(&folder.path().join("by-hand/model")), weights(&out.join("early/model")));
    assert!(folder.path().join("by-hand/kept/step-00000003/config.json").exists());

    // Nothing changes for what is there.
    let again = run(RECIPE, &[]);
    assert!(again.stderr.matches("finished before").count() == 8, "{}", again.stderr);
    // Fewer steps lose nothing; others have not been kept.
    let fewer = RECIPE
        .replace("model = \"trunk@12\"", "model = \"trunk@6\"")
        .replace("\"trunk@12\"]", "\"trunk@16\"]");
    assert!(!run(&fewer, &["--dry-run"]).success().contains("trunk: "), "fewer");
    let other = run(&RECIPE.replace("trunk@16", "trunk@15"), &["--dry-run"]).success();
    assert!(other.contains("trunk: `keep_steps` was [6,12,16,20], is [6,12,15,20]"), "{other}");
    let longer = run(&RECIPE.replace("steps = 20", "steps = 24"), &["--only", "early"]).failure();
    assert!(longer.contains("`steps` was 20, is 24"), "{longer}");
}

#[test]
fn steps_that_are_not_there_are_refused() {
    let folder = directory(&[("a.txt", &letters())]);
    let cases = [
        ("beyond the end", "from = \"trunk@6\"", "from = \"trunk@21\""),
        ("of what does not train", "from = \"trunk@6\"", "from = \"both@6\""),
        ("of a tokenizer", "tokenizer = \"words\"", "tokenizer = \"words@6\""),
        ("no step", "from = \"trunk@6\"", "from = \"trunk@six\""),
        ("no stage", "from = \"trunk@6\"", "from = \"trnk@6\""),
        ("its own", "from = \"trunk@6\"", "from = \"early@6\""),
        ("a budget beyond the end", "trunk@20\", share", "trunk@30\", share"),
        ("to keep beyond the end", "steps = 20", "steps = 20\nkeep_steps = [30]"),
        ("no optimiser's state", "keep_optimizer = true", ""),
    ];
    let said = cases.map(|(name, from, to)| {
        let recipe = RECIPE.replace(from, to);
        assert_ne!(recipe, RECIPE);
        format!("{name}\n{}\n", run(folder.path(), &recipe, &["--dry-run"]).failure())
    });
    insta::assert_snapshot!(said.concat());
}

/// Each set of seeds has its own trunk, and a trunk that is interrupted keeps what it had.
#[test]
fn trunks_go_with_seeds() {
    let folder = directory(&[("a.txt", &letters())]);
    let seeds = format!("seeds = 2\n{RECIPE}");
    let only = ["--only", "early"];
    run(folder.path(), &seeds, &only).success();
    let out = folder.path().join("out");
    let start = json(&out.join("early.2/stage.json"))["settings"]["start"].take();
    assert_eq!(start.to_string(), "{\"model\":{\"stage\":\"trunk.2\",\"step\":6}}");
    let models =
        ["trunk/kept/step-00000006", "trunk.2/kept/step-00000006"].map(|model| weights(&out.join(model)));
    assert_ne!(models[0], models[1]);
}
