use std::fs;

use serde_json::json;

use crate::program::{call, directory, text};

/// The files of a pretraining run: the loss falls by `drop` per step from `first`; each step takes 10 GFLOP.
fn pretraining(first: f64, drop: f64, parents: f64) -> (String, String) {
    let point = |step: u64| {
        json!({
            "kind": "evaluation", "step": step, "tokens": 1_000 * step, "flops": 1e10 * step as f64,
            "loss": first - drop * step as f64, "context_gain": 0.002 * step as f64, "accuracy": 0.1 + 0.01 * step as f64,
        })
    };
    let metrics: String = (0..=8).map(|part| format!("{}\n", point(5 * part))).collect();
    let result = json!({
        "parameters": 1_234_567, "steps": 40, "tokens": 40_000, "flops": 4e11, "total_flops": 4e11 + parents,
        "loss": first - drop * 40.0, "accuracy": 0.5, "context_gain": 0.08,
    });
    let record = json!({ "version": 1, "settings": {}, "inputs": {}, "result": result, "seconds": 75.0 });
    (metrics, record.to_string())
}

/// RTE fine-tuned with one seed for each of these accuracies.
fn glue(accuracies: &[f64]) -> serde_json::Value {
    let seed = |(seed, accuracy): (usize, &f64)| {
        let step = json!({
            "step": 10, "train_loss": 1.5,
            "score": {
                "task": "rte", "metrics": [{ "name": "accuracy", "percent": accuracy }], "examples": 277, "invalid": 2,
            },
        });
        json!({
            "seed": seed,
            "tasks": [{ "task": "rte", "best": step, "last": step, "evaluations": [step],
                "examples": [{ "split": "train", "used": 100, "official": 2490 }], "skipped_rows": 0 }],
        })
    };
    json!({ "settings": {}, "seeds": accuracies.iter().enumerate().map(seed).collect::<Vec<_>>() })
}

pub fn run(fused_first: f64) -> tempfile::TempDir {
    let stage =
        |name: &str, kind: &str, inputs: &[&str]| json!({ "name": name, "kind": kind, "inputs": inputs });
    let run = json!({
        "version": 1, "name": "synthetic",
        "stages": [
            stage("words", "tokenizer", &[]), stage("baseline", "pretrain", &["words"]),
            stage("fuse", "fuse", &["a", "b"]), stage("fused", "pretrain", &["fuse", "words"]),
            stage("grown", "pretrain", &["a"]), stage("score", "evaluate", &["fused", "words"]),
            stage("glue", "glue", &["fused"]),
        ],
        "comparison": { "baseline": "baseline", "arms": ["fused", "grown"] },
    });
    let record = |result: serde_json::Value| {
        json!({ "version": 1, "settings": {}, "inputs": {}, "result": result, "seconds": 3.0 }).to_string()
    };
    let glue = glue(&[61.25]);
    let (baseline_metrics, baseline) = pretraining(6.0, 0.05, 0.0);
    let (fused_metrics, fused) = pretraining(fused_first, 0.04, 1.5e11);
    directory(&[
        ("run.json", &run.to_string()),
        ("words/stage.json", &record(json!({ "vocabulary": 1000 }))),
        ("baseline/stage.json", &baseline),
        ("baseline/metrics.jsonl", &baseline_metrics),
        ("fuse/stage.json", &record(json!({ "parameters": 1_234_567 }))),
        ("fused/stage.json", &fused),
        ("fused/metrics.jsonl", &fused_metrics),
        (
            "score/stage.json",
            &record(json!({ "loss": 3.25, "accuracy": 0.4321, "context_gain": 0.345, "tokens": 98_765 })),
        ),
        ("glue/stage.json", &record(glue)),
    ])
}

#[test]
fn tables() {
    let run = run(5.0);
    insta::assert_snapshot!("text", call(&["report", text(run.path())]).success());
    insta::assert_snapshot!(
        "markdown",
        call(&["report", text(run.path()), "--format", "markdown"]).success()
    );
    let json = call(&["report", text(run.path()), "--json"]).success();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["comparison"][1]["parents_flops"], 1.5e11);
    assert_eq!(json["stages"][4]["finished"], false);
}

#[test]
fn a_fusion_that_does_not_win_is_said_not_to() {
    let run = run(5.9);
    let report = call(&["report", text(run.path())]).success();
    let verdicts: Vec<&str> =
        report.lines().filter(|line| line.ends_with('.') && line.contains("baseline")).collect();
    insta::assert_snapshot!(verdicts.join("\n"));
}

#[test]
fn damaged_directories() {
    let empty = directory(&[]);
    let no_run = call(&["report", text(empty.path())]).failure();
    assert!(no_run.contains("is no run's directory"), "{no_run}");
    let run = run(5.0);
    fs::write(run.path().join("fused/stage.json"), "{").expect("a file");
    let damaged = call(&["report", text(run.path())]).failure();
    assert!(damaged.contains("fused/stage.json is damaged"), "{damaged}");
}

/// Several results side by side; those within a standard deviation of the baseline are marked.
#[test]
fn side_by_side() {
    let glue = |accuracies: &[f64]| glue(accuracies).to_string();
    let folder = directory(&[
        ("small/glue.json", &glue(&[60.0, 62.0])), // 61.00 ± 1.41
        ("near/glue.json", &glue(&[62.2, 62.5])),  // within 1.41 of it
        ("far/glue.json", &glue(&[62.4, 62.7])),   // not
        ("paper.csv", "model,RTE accuracy,RTE accuracy sd,Average\n\"Elsewhere, T5\",64.5,0.5,70\n"),
        ("typo.csv", "model,RTE accurracy\nx,1\n"),
        ("words.csv", "model,RTE accuracy\nx,1\ny,many\n"),
    ]);
    let at = |name: &str| folder.path().join(name).into_os_string().into_string().expect("UTF-8");
    let (run, small, near, far) = (run(5.0), at("small"), at("near"), at("far"));
    let report = |more: &[&str]| call(&[&["report", &small, &near, &far], more].concat());
    insta::assert_snapshot!("side_by_side", report(&["--beside", &at("paper.csv")]).success());
    insta::assert_snapshot!("side_by_side_csv", report(&["--format", "csv"]).success());
    let other = report(&["--baseline", "far"]).success();
    let marked = |line: &&str| line.contains('≈') && line.contains("best step");
    assert_eq!(
        other.lines().filter(marked).map(|line| line.split(',').next()).collect::<Vec<_>>(),
        [Some("near")]
    );
    let with_run = call(&["report", text(run.path()), &small]).success();
    assert!(
        with_run.contains("synthetic/glue, best step") && with_run.contains("small, best step"),
        "{with_run}"
    );
    let errors = [
        report(&["--baseline", "nobody"]).failure(),
        report(&["--beside", &at("typo.csv")]).failure(),
        report(&["--beside", &at("words.csv")]).failure(),
        call(&["report", text(run.path()), "--baseline", "small"]).failure(),
    ];
    insta::assert_snapshot!("side_by_side_errors", errors.join("").replace(text(folder.path()), ""));
}
