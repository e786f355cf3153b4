//! Trainings whose number of steps follows from what others cost.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{Called, call_in, directory};
use crate::recipes::letters;

/// Two parents, their child and a baseline. The text yields fewer tokens than the vocabulary asks for.
const RECIPE: &str = concat!(
    small_model!(),
    large_model!(),
    r#"
[pretraining]
steps = 9
batch_size = 2
evaluation_batches = 1

[stages.fused]
kind = "pretrain"
from = "fuse"
computation = "baseline"

[stages.fuse]
kind = "fuse"
parents = ["a", "b"]

[stages.words]
kind = "tokenizer"
vocabulary = 4000

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

/// The steps and the computation of a finished stage, alone and with everything behind it.
fn spent(folder: &Path, stage: &str) -> (u64, f64, f64) {
    let result = json(&folder.join("out").join(stage).join("stage.json"))["result"].take();
    let number = |key: &str| result[key].as_f64().expect("a number");
    (number("steps") as u64, number("flops"), number("total_flops"))
}

/// The number of steps that a plan shows for a stage.
fn planned(plan: &str, stage: &str) -> u64 {
    let line = plan.lines().find_map(|line| line.strip_prefix(&format!("{stage}: "))).expect("a line");
    line.split_once(" steps, ").expect("steps").0.parse().expect("a number")
}

/// The totals agree within one update, by the count of the model's lineage and of the report.
fn agrees(folder: &Path, stage: &str, allowed: f64) {
    let (steps, own, total) = spent(folder, stage);
    let left = allowed - total;
    assert!(left >= -1e-9 * allowed && left < own / steps as f64, "{stage}: {total} of {allowed}");
}

#[test]
fn a_child_trains_for_as_much_as_the_baseline() {
    let folder = directory(&[("a.txt", &letters())]);
    let run = |recipe: &str, more: &[&str]| run(folder.path(), recipe, more);
    let asked = planned(&run(RECIPE, &["--dry-run"]).success(), "fused");
    run(RECIPE, &["--only", "a"]).success();
    let plan = run(RECIPE, &["--plan"]).success();
    let steps = planned(&plan, "fused");
    assert_ne!(steps, asked, "the vocabulary is smaller than it was asked for");
    insta::assert_snapshot!(plan);

    // The baseline need not have run, and is not run for this.
    run(RECIPE, &["--only", "fused"]).success();
    assert!(!folder.path().join("out/baseline").exists());
    assert_eq!(spent(folder.path(), "fused").0, steps);
    let settings = json(&folder.path().join("out/fused/stage.json"))["settings"].take();
    assert_eq!((&settings["steps"], &settings["warm_up"]), (&steps.into(), &(steps / 10).into()));
    let report = run(RECIPE, &[]);
    assert!(report.stderr.contains("fused: finished before"), "{}", report.stderr);
    let report = report.success();
    let (_, _, baseline) = spent(folder.path(), "baseline");
    agrees(folder.path(), "fused", baseline);
    let shares = report.lines().skip_while(|line| !line.contains("of the baseline's  ")).collect::<Vec<_>>();
    assert!(shares.iter().any(|line| line.starts_with("fused ") && line.contains(" 9")), "{report}");

    // The number of steps counts, not how a recipe says it.
    let same = RECIPE.replace("computation = \"baseline\"", &format!("steps = {steps}"));
    assert!(run(&same, &[]).stderr.contains("fused: finished before"));
    let same = RECIPE
        .replace("\"baseline\"\n\n[stages.fuse]", &format!("{}\n\n[stages.fuse]", baseline * 1.000_001));
    assert!(run(&same, &[]).stderr.contains("fused: finished before"));
    let longer = RECIPE.replace("steps = 20", "steps = 40");
    let outdated = run(&longer, &["--only", "fused"]).failure();
    assert!(outdated.contains(&format!("out of date: `steps` was {steps}, is ")), "{outdated}");
    // What is given on the command line replaces either.
    let other = run(RECIPE, &["--set", "stages.fused.steps=3", "--only", "fused"]).failure();
    assert!(other.contains(&format!("`steps` was {steps}, is 3")), "{other}");
}

/// Self fusion counts its parent once, a training may go on from another, and budgets may follow each other.
#[test]
fn every_kind_of_budget() {
    let more = r#"
[stages.self-fuse]
kind = "fuse"
parents = ["a"]
times = 2

[stages.self-fused]
kind = "pretrain"
from = "self-fuse"
computation = { of = "baseline", share = 0.75 }

[stages.on]
kind = "pretrain"
from = "self-fused"
computation = "baseline"

[stages.follows]
kind = "pretrain"
model = "large"
computation = "self-fused"

[stages.absolute]
kind = "pretrain"
model = "small"
computation = 40_000_000
"#;
    let folder = directory(&[("a.txt", &letters())]);
    let recipe = format!("{RECIPE}{more}");
    let plan = run(folder.path(), &recipe, &["--dry-run", "--set", "stages.words.vocabulary=300"]).success();
    insta::assert_snapshot!(plan);
    run(folder.path(), &recipe, &[]).success();
    let total = |stage: &str| spent(folder.path(), stage).2;
    let baseline = total("baseline");
    for (stage, allowed) in [
        ("fused", baseline),
        ("self-fused", 0.75 * baseline),
        ("on", baseline),
        ("follows", total("self-fused")),
        ("absolute", 4e7),
    ] {
        agrees(folder.path(), stage, allowed);
    }
    // A file's lineage tells what is behind it.
    let file = "\n[stages.of-file]\nkind = \"pretrain\"\nfrom = \"out/fused/model\"\ncomputation = { of = \"baseline\", share = 1.5 }\n";
    run(folder.path(), &format!("{recipe}{file}"), &[]).success();
    agrees(folder.path(), "of-file", 1.5 * baseline);
    fs::remove_file(folder.path().join("out/fused/model/lineage.json")).expect("removed");
    let unknown =
        run(folder.path(), &format!("{recipe}{file}"), &["--only", "of-file", "--dry-run"]).failure();
    assert!(
        unknown.contains("out/fused/model has cost is not known, so no number of steps follows"),
        "{unknown}"
    );
}

#[test]
fn a_budget_that_gives_no_number_of_steps_is_refused() {
    let folder = directory(&[("a.txt", &letters())]);
    let cases = [
        ("a cycle", "computation = \"fused\""),
        ("a cycle by way of others", "computation = \"baseline\"\n\n[stages.a]\ncomputation = \"fused\""),
        ("no training", "computation = \"fuse\""),
        ("no stage", "computation = \"baselin\""),
        ("both", "computation = \"baseline\"\nsteps = 3"),
        ("nothing", "computation = 0"),
        ("a negative share", "computation = { of = \"baseline\", share = -0.5 }"),
        ("a word for a share", "computation = { of = \"baseline\", share = \"half\" }"),
        ("no stage in a table", "computation = { share = 0.5 }"),
        ("another type", "computation = true"),
        ("parents that cost more", "computation = { of = \"baseline\", share = 0.4 }"),
        (
            "not even one update",
            "computation = \"a\"\n\n[stages.large]\nkind = \"pretrain\"\nmodel = \"large\"\ncomputation = 1000",
        ),
        ("less than the warm-up", "computation = \"baseline\"\nwarm_up = 500"),
    ];
    let said = cases.map(|(name, keys)| {
        let (keys, more) = keys.split_once("\n\n").unwrap_or((keys, ""));
        let recipe = RECIPE.replace("computation = \"baseline\"", keys);
        let recipe = match more.strip_prefix("[stages.a]\n") {
            Some(own) => recipe.replace("seed = 1", &format!("seed = 1\n{own}")),
            None => format!("{recipe}\n{more}"),
        };
        format!("{name}\n{}\n", run(folder.path(), &recipe, &["--dry-run"]).failure())
    });
    insta::assert_snapshot!(said.concat());
}
