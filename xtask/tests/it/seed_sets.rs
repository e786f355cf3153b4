//! `seeds = 3`: recipes whose stages run with several sets of seeds.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{Called, call_in, directory};
use crate::recipes::letters;

const RECIPE: &str = concat!(
    small_model!(),
    large_model!(),
    r#"
[pretraining]
steps = 10
batch_size = 2
evaluate_every = 5
evaluation_batches = 1

[stages.words]
kind = "tokenizer"
vocabulary = 300

[stages.a]
kind = "pretrain"
model = "small"
seed = 1

[stages.b]
kind = "pretrain"
model = "small"
seed = 2

[stages.baseline]
kind = "pretrain"
model = "large"
steps = 20

[stages.fuse]
kind = "fuse"
parents = ["a", "b"]

[stages.fused]
kind = "pretrain"
from = "fuse"
computation = "baseline"

[stages.grow]
kind = "fuse"
parents = ["a"]
times = 2
cross = "relative:0.01"

[stages.score]
kind = "evaluate"
model = "fused"
examples = 16

[comparison]
baseline = "baseline"
arms = ["fused"]
"#
);

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("written")).expect("JSON")
}

fn run(folder: &Path, recipe: &str, more: &[&str]) -> Called {
    fs::write(folder.join("recipe.toml"), recipe).expect("written");
    call_in(folder, &[&["run", "recipe.toml", "--output", "out"], more].concat())
}

#[test]
fn stages_run_with_other_seeds_and_share_what_no_seed_decides() {
    let folder = directory(&[("a.txt", &letters())]);
    let run = |recipe: &str, more: &[&str]| run(folder.path(), recipe, more);
    let plain = run(RECIPE, &["--plan"]).success();
    assert_eq!(run(&format!("seeds = 1\n{RECIPE}"), &["--plan"]).success(), plain);
    let three = format!("seeds = 3\n{RECIPE}");
    let plan = run(&three, &["--plan"]).success();
    assert_eq!(run(RECIPE, &["--set", "seeds=3", "--plan"]).success(), plan);
    insta::assert_snapshot!("plan", plan);
    // A name means all sets, that of one set means this.
    let names = |only: &[&str]| -> Vec<String> {
        let plan = run(&three, &[&["--plan"], only].concat()).success();
        let rows = plan.lines().skip_while(|line| !line.starts_with("stage ")).skip(1);
        rows.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
    };
    assert_eq!(names(&["--only", "baseline"]), ["words", "baseline", "baseline.2", "baseline.3"]);
    assert_eq!(names(&["--only", "baseline.2"]), ["words", "baseline.2"]);
    let unknown = run(&three, &["--only", "baseline.4"]).failure();
    assert!(unknown.contains("there is no stage \"baseline.4\""), "{unknown}");

    // What ran with one set of seeds is the first of several.
    run(RECIPE, &[]).success();
    let several = run(&three, &[]);
    for stage in ["words", "a", "b", "baseline", "fuse", "fused", "grow", "score"] {
        assert!(several.stderr.contains(&format!("{stage}: finished before")), "{}", several.stderr);
    }
    let report = several.success();
    let settings =
        |stage: &str| json(&folder.path().join("out").join(stage).join("stage.json"))["settings"].take();
    let seeds = ["a", "a.2", "a.3", "b", "b.3", "baseline.2", "grow", "grow.2"];
    assert_eq!(
        seeds.map(|stage| settings(stage)["seed"].as_u64()),
        [1, 1001, 2001, 2, 2002, 1000, 0, 1000].map(Some)
    );
    assert_eq!(settings("fuse.2")["parents"][1]["stage"], "b.2");
    assert_eq!(settings("fused.3")["start"]["model"]["stage"], "fuse.3");
    assert_eq!(settings("fused.3")["data"]["tokenizer"]["stage"], "words");
    assert_eq!(settings("score.2")["model"]["stage"], "fused.2");

    let file = json(&folder.path().join("out/run.json"));
    let entries = file["stages"].as_array().expect("stages");
    let set = |name: &str| {
        let entry = entries.iter().find(|entry| entry["name"] == name).expect("a stage");
        entry.get("seed_set").map(Value::to_string)
    };
    assert_eq!(set("words"), None);
    assert_eq!(set("fused").as_deref(), Some("{\"stage\":\"fused\",\"number\":1}"));
    assert_eq!(set("fused.3").as_deref(), Some("{\"stage\":\"fused\",\"number\":3}"));

    // The means of the report are those of the sets.
    let losses: Vec<f64> = ["baseline", "baseline.2", "baseline.3"]
        .map(|stage| {
            json(&folder.path().join("out").join(stage).join("stage.json"))["result"]["loss"].as_f64()
        })
        .into_iter()
        .collect::<Option<_>>()
        .expect("losses");
    let mean = losses.iter().sum::<f64>() / 3.0;
    let deviation = (losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let expected = format!("{mean:.4} ± {deviation:.4}");
    let rows: Vec<&str> = report.lines().filter(|line| line.contains(&expected)).collect();
    assert!(rows.len() >= 2 && rows[0].starts_with("baseline × 3 "), "{report}");
    assert!(report.contains("Mean ± standard deviation over 3 sets of seeds."), "{report}");
    assert!(report.contains("(mean of 3 seeds)"), "{report}");
    let compared =
        serde_json::from_str::<Value>(&call_in(folder.path(), &["report", "out", "--json"]).success());
    let compared = compared.expect("JSON")["comparison"].take();
    let sets =
        compared.as_array().expect("arms").iter().map(|arm| arm["seed_set"].to_string()).collect::<Vec<_>>();
    assert_eq!(sets.len(), 6);
    assert_eq!(sets[5], "{\"stage\":\"fused\",\"number\":3}");
}

#[test]
fn sets_of_seeds_that_would_not_be_apart_are_refused() {
    let folder = directory(&[("a.txt", &letters())]);
    let named = "[stages.\"a.3\"]\nkind = \"pretrain\"\nmodel = \"small\"\n";
    let cases = [
        ("none", "seeds = 0".to_owned()),
        ("too many", "seeds = 101".to_owned()),
        ("no number", "seeds = \"three\"".to_owned()),
        ("a table", "[seeds]\na = 1".to_owned()),
        ("a name that a set would have", format!("seeds = 3\n{RECIPE}\n{named}")),
        ("a seed that a set would have", format!("seeds = 3\n{}", RECIPE.replace("seed = 2", "seed = 2001"))),
    ];
    let said = cases.map(|(name, recipe)| {
        let recipe = if recipe.contains("[stages") { recipe } else { format!("{recipe}\n{RECIPE}") };
        format!("{name}\n{}\n", run(folder.path(), &recipe, &["--dry-run"]).failure())
    });
    insta::assert_snapshot!(said.concat());
    let apart = format!("seeds = 2\n{}", RECIPE.replace("seed = 2", "seed = 2001"));
    run(folder.path(), &apart, &["--dry-run"]).success();
}

/// A plan gives a fusion's warning, the run does not give it again, and the other sets of seeds do not either.
#[test]
fn a_warning_is_given_once() {
    let folder = directory(&[("a.txt", &letters())]);
    let recipe = format!(
        "seeds = 2\n{}",
        RECIPE.replace("parents = [\"a\", \"b\"]", "parents = [\"a\", \"b\"]\nnorm = \"rule\"")
    );
    let warnings = |called: Called| -> Vec<String> {
        let own = called.stderr.lines().filter(|line| line.contains("normalised as one vector"));
        own.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
    };
    assert_eq!(warnings(run(folder.path(), &recipe, &[])), ["fuse"]);
    let folder = directory(&[("a.txt", &letters())]);
    assert_eq!(
        warnings(run(folder.path(), &recipe, &["--only", "fuse.2"])),
        ["fuse.2"],
        "of the second set alone"
    );
}
