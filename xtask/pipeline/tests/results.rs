//! What a page and its figures are drawn from, for runs that are finished, under way, damaged and odd.

use std::fs;
use std::path::{Path, PathBuf};

use pipeline::report::glue_table::Beside;
use pipeline::report::results::{Depth, Results, Role, State};
use serde_json::{Value, json};

/// A directory with these files.
fn directory(files: &[(&str, String)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    directory
}

fn results(places: &[&Path]) -> Results {
    let places: Vec<PathBuf> = places.iter().map(|place| (*place).to_owned()).collect();
    Results::of(&places, &Beside::default(), Depth::default()).expect("results")
}

/// Evaluations every 5 steps, each step of 10 GFLOP, and a line of the log after each.
fn metrics(first: f64, drop: f64, steps: u64) -> String {
    let mut lines = Vec::new();
    for step in (0..=steps).step_by(5) {
        let loss = first - drop * step as f64;
        lines.push(json!({
            "kind": "evaluation", "step": step, "tokens": 1000 * step, "flops": 1e10 * step as f64,
            "loss": loss, "accuracy": 0.25, "context_gain": 0.01 * step as f64,
        }));
        lines.push(json!({
            "kind": "train", "step": step + 1, "tokens": 1000 * (step + 1), "flops": 1e10, "loss": loss,
            "accuracy": 0.1, "gradient_norm": 1.5, "learning_rate": 0.01, "tokens_per_second": 2000.0,
        }));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn record(settings: Value, result: Value) -> String {
    json!({ "version": 1, "settings": settings, "inputs": {}, "result": result, "seconds": 60.0 }).to_string()
}

fn trained(seed: u64, start: &str, loss: f64, parents: f64) -> String {
    let settings = json!({
        "kind": "pretrain", "start": { "model": { "stage": start } }, "seed": seed, "steps": 20,
        "data": { "text": ["builtin:webster"] },
    });
    let result = json!({
        "parameters": 1000, "steps": 20, "tokens": 20_000, "flops": 2e11, "total_flops": 2e11 + parents,
        "loss": loss, "accuracy": 0.25,
    });
    record(settings, result)
}

fn run(stages: &[(&str, &str, &[&str])], comparison: Value) -> (&'static str, String) {
    let stages: Vec<Value> = stages
        .iter()
        .map(|(name, kind, inputs)| json!({ "name": name, "kind": kind, "inputs": inputs }))
        .collect();
    let run = json!({ "version": 1, "name": "synthetic", "stages": stages, "comparison": comparison });
    ("run.json", run.to_string())
}

#[test]
fn seeds_are_put_together_and_pass_the_baseline() {
    let stages: &[(&str, &str, &[&str])] = &[
        ("small", "pretrain", &[]),
        ("base-1", "pretrain", &["small"]),
        ("base-2", "pretrain", &["small"]),
        ("fuse", "fuse", &["small"]),
        ("fused", "pretrain", &["fuse"]),
    ];
    let fuse = json!({ "kind": "fuse", "parents": [{ "stage": "small" }], "method": "fuse", "times": 2 });
    let run = directory(&[
        run(stages, json!({ "baseline": "base-1", "arms": ["base-2", "fused"] })),
        ("small/stage.json", trained(1, "none", 4.0, 0.0)),
        ("small/metrics.jsonl", metrics(6.0, 0.1, 20)),
        ("base-1/stage.json", trained(1, "small", 5.0, 0.0)),
        ("base-1/metrics.jsonl", metrics(6.0, 0.05, 20)),
        ("base-2/stage.json", trained(2, "small", 5.2, 0.0)),
        ("base-2/metrics.jsonl", metrics(6.2, 0.05, 20)),
        ("fuse/stage.json", record(fuse, json!({ "parameters": 1000, "warnings": [] }))),
        ("fused/stage.json", trained(1, "fuse", 4.4, 1e11)),
        ("fused/metrics.jsonl", metrics(5.4, 0.05, 20)),
    ]);
    let results = results(&[run.path()]);
    let sets: Vec<(&str, Role, usize)> =
        results.sets.iter().map(|set| (set.name.as_str(), set.role, set.members.len())).collect();
    assert_eq!(sets, [("base", Role::Baseline, 2), ("fused", Role::Arm, 1), ("small", Role::Other, 1)]);
    let base = results.baseline().expect("a baseline").last("loss").expect("a loss");
    assert!((base.mean - 5.1).abs() < 1e-9 && base.deviation.is_some(), "{base:?}");
    // 5.4 - 0.05 step reaches 5.1 at step 6, so the evaluation at step 10 shows it: 1e11 + 1e11 of 2e11.
    let passes = results.sets[1].passes.expect("passes");
    assert_eq!((passes.step, passes.total_flops, passes.share), (10, 2e11, 1.0));
    let nodes = &results.runs[0].stages;
    assert!(nodes.iter().all(|node| node.state == State::Finished));
    assert_eq!(
        (nodes[3].links[0].times, nodes[3].fused, nodes[4].fused, nodes[1].fused),
        (2, true, true, false)
    );
    let costs = |name: &str| results.costs.iter().find(|cost| cost.name == name).expect("a cost");
    assert_eq!(costs("fused").total_seconds, Some(180.0));
    assert_eq!(costs("fused").tokens_per_second, Some(2000.0));
    assert!(costs("fuse").fusion);
    // The comparison in words is the report's.
    assert_eq!(results.runs[0].comparison.len(), 3);
}

#[test]
fn a_run_under_way_shows_what_there_is() {
    let begun = |steps: u64| {
        json!({ "settings": { "kind": "pretrain", "steps": steps, "seed": 1 }, "inputs": {} }).to_string()
    };
    let diverged = metrics(6.0, 0.1, 5)
        + "{\"kind\":\"train\",\"step\":7,\"tokens\":7000,\"flops\":1.0,\"loss\":null,\"accuracy\":0.0,\
           \"gradient_norm\":null,\"learning_rate\":0.01,\"tokens_per_second\":1.0}\n{\"kind\":\"tra";
    let stages: &[(&str, &str, &[&str])] = &[
        ("a", "pretrain", &[]),
        ("b", "pretrain", &["hf:some/where"]),
        ("c", "pretrain", &["b"]),
        ("d", "pretrain", &["c"]),
    ];
    let run = directory(&[
        run(stages, json!({ "baseline": "a", "arms": ["b"] })),
        ("a/begun.json", begun(100)),
        ("a/metrics.jsonl", metrics(6.0, 0.1, 10)),
        ("b/begun.json", begun(20)),
        ("b/metrics.jsonl", diverged),
        ("b/time.json", json!([{ "began": 5, "seconds": 2.5, "error": "loss is not finite" }]).to_string()),
        ("c/begun.json", begun(20)),
        ("examples.json", "not read".into()),
    ]);
    fs::File::create(run.path().join(".c.lock")).and_then(|file| file.lock()).expect("a lock");
    let lock = fs::File::options().write(true).open(run.path().join(".c.lock")).expect("a lock");
    lock.try_lock().expect("the lock is free again");
    let results = results(&[run.path()]);
    let states: Vec<Value> = results.runs[0].stages.iter().map(|node| json!(node.state)).collect();
    let expected = [
        json!({ "is": "interrupted", "progress": { "step": 11, "of": 100 } }),
        json!({ "is": "failed", "error": "loss is not finite" }),
        json!({ "is": "running", "progress": null }),
        json!({ "is": "waiting" }),
    ];
    assert_eq!(states, expected);
    assert_eq!(results.runs[0].stages[1].outside, ["hf:some/where"]);
    // Curves are there; nothing has passed a baseline that has not finished.
    assert_eq!(results.trainings[0].curve.steps, [0, 5, 10]);
    assert_eq!(results.trainings[1].log.loss.last(), Some(&None));
    assert!(results.sets.iter().all(|set| set.passes.is_none()));
    assert!(results.runs[0].comparison.is_empty());
}

#[test]
fn examples_are_put_side_by_side() {
    let examples = |filled: &str| {
        let span = json!({ "sentinel": "<extra_id_0>", "expected": " a dog", "filled": filled });
        json!({ "examples": [{ "input": "This is <extra_id_0>.", "spans": [span] }] }).to_string()
    };
    let run = directory(&[
        run(&[("a", "pretrain", &[]), ("b", "pretrain", &[])], Value::Null),
        ("a/stage.json", trained(1, "none", 4.0, 0.0)),
        ("a/metrics.jsonl", metrics(6.0, 0.1, 20)),
        ("a/examples.json", examples("a dog")),
        ("b/stage.json", trained(2, "none", 4.0, 0.0)),
        ("b/metrics.jsonl", metrics(6.0, 0.1, 20)),
        ("b/examples.json", examples("")),
    ]);
    let results = results(&[run.path()]);
    assert_eq!(results.examples.len(), 1);
    let filled: Vec<(&str, bool)> =
        results.examples[0].models.iter().map(|model| (model.name.as_str(), model.holes[0].right)).collect();
    assert_eq!(filled, [("a", true), ("b", false)]);
    // Without a comparison, nothing is the baseline.
    assert!(results.baseline().is_none());
}

#[test]
fn a_training_by_itself_and_runs_side_by_side() {
    let training = directory(&[("metrics.jsonl", metrics(6.0, 0.1, 20))]);
    let alone = results(&[training.path()]);
    assert_eq!((alone.runs.len(), alone.trainings.len(), alone.sets.len()), (1, 1, 1));
    assert_eq!(alone.trainings[0].curve.steps.len(), 5);
    let run = directory(&[
        run(&[("a", "pretrain", &[])], Value::Null),
        ("a/stage.json", trained(1, "none", 4.0, 0.0)),
        ("a/metrics.jsonl", metrics(6.0, 0.1, 20)),
    ]);
    let both = results(&[run.path(), training.path(), run.path()]);
    let names: Vec<&str> = both.trainings.iter().map(|training| training.name.as_str()).collect();
    assert_eq!(names[0], "synthetic (1)/a");
    assert_eq!(names[2], "synthetic (3)/a");
    assert_eq!(names.len(), 3);
}

/// GLUE with one score of RTE for each seed.
fn scored(accuracies: &[f64]) -> String {
    let seed = |(seed, accuracy): (usize, &f64)| {
        let score = json!({
            "task": "rte", "metrics": [{ "name": "accuracy", "percent": accuracy }], "examples": 10, "invalid": 1,
        });
        let step = json!({ "step": 10, "train_loss": 1.5, "score": score });
        json!({
            "seed": seed,
            "tasks": [{ "task": "rte", "best": step, "last": step, "evaluations": [step],
                "examples": [], "skipped_rows": 0 }],
        })
    };
    let seeds: Vec<Value> = accuracies.iter().enumerate().map(seed).collect();
    record(json!({ "kind": "glue" }), json!({ "settings": {}, "seeds": seeds }))
}

#[test]
fn scores_of_models_on_the_way_are_a_course() {
    let stages: &[(&str, &str, &[&str])] = &[
        ("small", "pretrain", &[]),
        ("base", "pretrain", &[]),
        ("fuse", "fuse", &["small"]),
        ("fused", "pretrain", &["fuse"]),
        ("glue-base-10", "glue", &["base@10"]),
        ("glue-base", "glue", &["base"]),
        ("glue-fuse", "glue", &["fuse"]),
        ("glue-fused-5", "glue", &["fused@5"]),
        ("glue-fused", "glue", &["fused"]),
        ("glue-small", "glue", &["small"]),
    ];
    let fuse = json!({ "kind": "fuse", "parents": [{ "stage": "small" }], "method": "fuse", "times": 2 });
    let run = directory(&[
        run(stages, json!({ "baseline": "base", "arms": ["fused"] })),
        ("small/stage.json", trained(1, "none", 4.0, 0.0)),
        ("small/metrics.jsonl", metrics(6.0, 0.1, 20)),
        ("base/stage.json", trained(1, "small", 5.0, 0.0)),
        ("base/metrics.jsonl", metrics(6.0, 0.05, 20)),
        ("fuse/stage.json", record(fuse, json!({ "parameters": 1000, "warnings": [] }))),
        ("fused/stage.json", trained(1, "fuse", 4.4, 1e11)),
        ("fused/metrics.jsonl", metrics(5.4, 0.05, 20)),
        ("glue-base-10/stage.json", scored(&[60.0])),
        ("glue-base/stage.json", scored(&[64.0, 66.0])),
        ("glue-fuse/stage.json", scored(&[61.0])),
        ("glue-fused-5/stage.json", scored(&[63.0])),
        ("glue-fused/stage.json", scored(&[67.0])),
        ("glue-small/stage.json", scored(&[55.0])),
    ]);
    let results = results(&[run.path()]);
    let glue = results.glue.as_ref().expect("GLUE");
    let course = |name: &str| glue.courses.iter().find(|course| course.name == name);
    let base = course("base").expect("two models of one training");
    assert_eq!((base.is_baseline, &base.steps[..], &base.mean[..]), (true, &[10, 20][..], &[60.0, 65.0][..]));
    assert_eq!(base.deviation.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
    // A fusion is the beginning of what goes on with it.
    let fused = course("fused").expect("three models");
    assert_eq!((&fused.steps[..], &fused.mean[..]), (&[0, 5, 20][..], &[61.0, 63.0, 67.0][..]));
    assert!(course("small").is_none(), "one model is no course");
    let plot = pipeline::report::plot::courses(&results).expect("a plot");
    let looks: Vec<(&str, Option<usize>)> =
        plot.lines.iter().map(|line| (line.name.as_str(), line.look.colour)).collect();
    assert_eq!(looks, [("base", None), ("fused", Some(0))]);
    let figures = pipeline::report::figures::figures(&results).expect("figures");
    assert!(figures.iter().any(|figure| figure.name == "glue-by-pretraining"));
}
