//! A report as a page. `.ci/check-page` opens pages in a browser; these tests look at what is in them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{call, directory, text};
use crate::report::run;

/// The page of these runs.
fn page(runs: &[&Path]) -> String {
    let folder = directory(&[]);
    let place = folder.path().join("page.html");
    let runs = runs.iter().map(|run| text(run));
    let called =
        call(&[&["report"], runs.collect::<Vec<_>>().as_slice(), &["--html", text(&place)]].concat());
    assert_eq!(called.success(), "");
    fs::read_to_string(place).expect("a page")
}

/// What the page's script draws.
fn data(page: &str) -> Value {
    let (_, after) = page.split_once("<script type=\"application/json\" id=\"data\"").expect("data");
    let (_, json) = after.split_once('>').expect("the end of a tag");
    let (json, _) = json.split_once("</script>").expect("the end of the data");
    serde_json::from_str(json).expect("JSON")
}

/// The anchors of the page's sections.
fn sections(page: &str) -> Vec<&str> {
    let ids = page.split("<section id=\"").skip(1);
    ids.filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn curves_of_a_run() {
    let run = run(5.0);
    let page = page(&[run.path()]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&data(&page)).expect("JSON"));
    assert_eq!(sections(&page), ["comparison", "context", "recipe", "glue", "costs", "provenance"]);
    // Nothing is fetched: what is named elsewhere is named in words.
    for tag in ["<img", "<link rel=\"stylesheet\"", "<iframe", " src=", "@import", "url("] {
        assert!(!page.contains(tag), "{tag}");
    }
    assert!(page.contains("Permission is hereby granted, free of charge"), "the licence of uPlot");
    // In words as the report in text has them.
    let words = call(&["report", text(run.path())]).success();
    let verdict = words.lines().find(|line| line.starts_with("After 40 steps")).expect("a verdict");
    assert!(page.contains(verdict), "{verdict}");
}

#[test]
fn names_and_texts_are_no_markup() {
    let hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u{2028}{{ 7 * 7 }}\"'&";
    let span = json!({ "sentinel": "<extra_id_0>", "expected": hostile, "filled": hostile });
    let record = json!({
        "version": 1, "inputs": {}, "seconds": 1.0,
        "settings": { "seed": 1, "note": hostile, "data": { "text": [hostile] } },
        "result": { "parameters": 1, "steps": 5, "tokens": 5, "flops": 1.0, "total_flops": 1.0, "loss": 1.0 },
    });
    let point = |step: u64| {
        json!({
            "kind": "evaluation", "step": step, "tokens": step, "flops": step as f64, "loss": 1.0, "accuracy": 0.5,
        })
    };
    let stage = json!({ "name": "a", "kind": hostile, "inputs": [hostile] });
    let other = json!({ "name": "b", "kind": "pretrain", "inputs": [hostile] });
    let run = json!({
        "version": 1, "name": hostile, "stages": [stage, other],
        "recipe": [{ "name": hostile, "text": format!("# {hostile}\nx = \"{hostile}\"\n") }],
        "command": ["cargo", "xtask", hostile],
    });
    let folder = directory(&[
        ("run.json", &run.to_string()),
        ("b/stage.json", &record.to_string()),
        ("b/metrics.jsonl", &format!("{}\n{}\n", point(0), point(5))),
        (
            "b/examples.json",
            &json!({ "examples": [{ "input": format!("{hostile}<extra_id_0>"), "spans": [span] }] })
                .to_string(),
        ),
    ]);
    let page = page(&[folder.path()]);
    let lower = page.to_lowercase();
    // The page's own scripts: data, uPlot, and what draws with it. No other tag begins with what was put in.
    assert_eq!(lower.matches("<script").count(), 3, "scripts");
    assert_eq!(lower.matches("</script>").count(), 3, "ends of scripts");
    assert!(!lower.contains("<img"), "an image");
    assert!(page.contains("{{ 7 * 7 }}") && !page.contains("> 49"), "a template in a text");
    assert!(page.contains("&lt;img src=x onerror=alert(2)&gt;"), "the text itself is there");
    assert_eq!(sections(&page), ["comparison", "recipe", "costs", "examples", "provenance"]);
}

/// A page that makes sense of every state; what there is nothing to show of is left out.
#[test]
fn runs_that_are_not_whole() {
    let stage = |name: &str, kind: &str| json!({ "name": name, "kind": kind, "inputs": [] });
    let file = |stages: Value, comparison: Value| {
        json!({ "version": 1, "name": "odd", "stages": stages, "comparison": comparison }).to_string()
    };
    let begun =
        json!({ "settings": { "kind": "pretrain", "steps": 50, "seed": 1 }, "inputs": {} }).to_string();
    let failed = json!([{ "began": 9, "seconds": 1.0, "error": "the disk is full" }]).to_string();
    let nan = "{\"kind\":\"train\",\"step\":1,\"tokens\":1,\"flops\":1.0,\"loss\":null,\"accuracy\":0.0,\
               \"gradient_norm\":null,\"learning_rate\":0.1,\"tokens_per_second\":1.0}\n";
    let none = Value::Null;
    let compared = json!({ "baseline": "a", "arms": ["b"] });

    let not_begun = directory(&[("run.json", &file(json!([stage("a", "pretrain")]), none.clone()))]);
    let shown = page(&[not_begun.path()]);
    assert_eq!(sections(&shown), ["recipe", "provenance"]);
    assert!(shown.contains("0 of 1 stages finished") && shown.contains("not begun"));

    let one = directory(&[
        ("run.json", &file(json!([stage("words", "tokenizer")]), none)),
        (
            "words/stage.json",
            &json!({ "version": 1, "settings": {}, "inputs": {}, "result": {}, "seconds": 2.0 }).to_string(),
        ),
    ]);
    assert!(page(&[one.path()]).contains("one stage, finished"));

    let stages = json!([stage("a", "pretrain"), stage("b", "pretrain"), stage("c", "glue")]);
    let broken = directory(&[
        ("run.json", &file(stages, compared)),
        ("a/begun.json", &begun),
        ("a/metrics.jsonl", nan),
        ("a/time.json", &failed),
        ("b/begun.json", &begun),
    ]);
    let shown = page(&[broken.path()]);
    assert!(shown.contains("a failed.") && shown.contains("the disk is full"));
    assert!(shown.contains("step 1 of 50") || shown.contains("failed"), "the state of a stage");
    assert_eq!(data(&shown)["sets"], json!([]));

    // Several at once, the same one twice.
    let whole = run(5.0);
    let shown = page(&[whole.path(), broken.path(), whole.path()]);
    let sets = data(&shown)["sets"].as_array().map_or(0, Vec::len);
    assert_eq!(sets, 6, "three trainings of each whole run");
}

#[test]
fn only_an_earlier_page_is_replaced() {
    let run = run(5.0);
    let folder = directory(&[("notes.html", "<p>mine</p>"), ("empty.html", "")]);
    let write = |name: &str| call(&["report", text(run.path()), "--html", text(&folder.path().join(name))]);
    let refused = write("notes.html").failure();
    assert!(refused.contains("is no page of a report, so it is not overwritten"), "{refused}");
    assert_eq!(fs::read_to_string(folder.path().join("notes.html")).expect("a file"), "<p>mine</p>");
    for name in ["empty.html", "new.html", "new.html"] {
        write(name).success();
    }
    write("").failure();
}
