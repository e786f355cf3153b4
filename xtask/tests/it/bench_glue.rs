//! `bench glue`, with scripts in place of a Python with transformers and CTranslate2.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Called, call, directory, text};
use crate::scripts::{backends, python};

const WORDS: [&str; 9] =
    ["<pad>", "</s>", "<unk>", "sst2", "sentence:", "negative", "positive", "dull", "so"];

/// A worker that gives a valid answer to one prompt and an invalid one to the other.
const SOUND: &str = r#"
echo '{"ready": true, "parameters": 10480}'
while read -r word set; do
    case $word in
        answer) echo '{"seconds": 0.5, "answers": [{"tokens": [5], "text": "negative"}, {"tokens": [8], "text": "so"}]}' ;;
        quit) echo '{"peak_rss_bytes": 1000000}' && exit ;;
    esac
done
"#;
/// Its first lines.
const READY: &str = r#"
echo '{"ready": true, "parameters": 10480}'
read -r request
"#;

/// GLUE's files for one task whose examples are all negative, and a tokenizer for their words.
fn files() -> TempDir {
    let vocabulary: Value = WORDS.iter().zip(0..).map(|(word, id)| (word.to_string(), json!(id))).collect();
    let special = |(id, word): (usize, &&str)| {
        json!({
            "id": id, "content": word, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false,
        })
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": WORDS.iter().take(3).enumerate().map(special).collect::<Vec<_>>(),
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" },
    });
    let examples = "sentence\tlabel\nso dull\t0\nso so so\t0\n";
    directory(&[
        ("tokenizer.json", &tokenizer.to_string()),
        ("SST-2/train.tsv", examples),
        ("SST-2/dev.tsv", examples),
    ])
}

fn bench(worker: &str, more: &[&str]) -> Called {
    let (python, files) = (python(worker), files());
    let (python, glue) = (python.path().join("python"), text(files.path()));
    let tokenizer = files.path().join("tokenizer.json");
    let arguments = ["--glue", glue, "--tasks", "sst2", "--tokenizer", text(&tokenizer)];
    let named = ["bench", "glue", "--model", "tiny", "--rounds", "2", "--python", text(&python)];
    call(&[&named[..], &arguments, more].concat())
}

#[test]
fn every_backend_answers_what_it_was_taught() {
    let transformers =
        ["transformers", "transformers bf16", "transformers unsorted", "transformers bf16 unsorted"];
    let others = [&transformers[..], &["ctranslate2"]].concat();
    let report: Value = serde_json::from_str(&bench(SOUND, &["--json"]).success()).expect("JSON");
    let contestants = report["contestants"].as_array().expect("contestants");
    let names: Vec<&str> = contestants.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(
        names,
        backends().iter().map(String::as_str).chain(others.iter().copied()).collect::<Vec<_>>()
    );
    assert_eq!(report["sets"], json!([{ "name": "sst2", "examples": 2, "tokens": 5 + 6 }]));
    assert_eq!(report["reference"], "transformers");
    for one in contestants {
        let scripted = one["name"].as_str().is_some_and(|name| others.contains(&name));
        let expected = if scripted { [1, 0] } else { [0, 1] };
        assert_eq!([&one["invalid"], &one["different"]], expected, "{one}");
        assert!(one["examples_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{one}");
        assert_eq!(one["rounds"].as_array().map(Vec::len), Some(2), "{one}");
    }
    let last = &contestants[contestants.len() - 1];
    assert_eq!((&last["examples_per_second"], &last["speed"]), (&json!(4.0), &json!(1.0)));
    assert_eq!(last["peak_memory"], 1_000_000);
}

#[test]
fn the_table_has_a_row_for_each() {
    let table = bench(SOUND, &["--only", "burn cpu", "--only", "transformers"]).success();
    let cells = |name: &str| -> Vec<String> {
        let row = table.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{table}"));
        row.split_whitespace().map(str::to_owned).collect()
    };
    assert!(
        table.starts_with("tiny, 10.5 k weights; 2 prompts of 5 tokens on average; batches of 64, "),
        "{table}"
    );
    assert_eq!(cells("transformers "), ["4.0", "1.00", "1.0", "MB", "1", "0"]);
    assert_eq!(cells("burn cpu ")[4..], ["0", "1"]);
}

#[test]
fn a_worker_that_fails_is_out_alone() {
    for (worker, reason) in [
        ("echo '{\"ready\": true, \"parameters\": 7}'; cat", "it has 7 weights, not 10480"),
        (
            &format!("{READY} echo '{{\"seconds\": 1.0, \"answers\": [null]}}'"),
            "it gave 1 answers to 2 prompts in 1 seconds",
        ),
        (&format!("{READY} echo '{{\"seconds\": 0.0, \"answers\": [null, null]}}'"), "in 0 seconds"),
        (&format!("{READY} echo '{{\"error\": \"out of memory\"}}'"), "out of memory"),
    ] {
        let called = bench(worker, &["--only", "burn cpu", "--only", "transformers"]);
        let row = called.stdout.lines().find(|line| line.starts_with("transformers  failed: "));
        assert!(
            row.is_some_and(|row| row.contains(reason)),
            "{worker}:\n{}\n{}",
            called.stdout,
            called.stderr
        );
        let other = called.stdout.lines().find(|line| line.starts_with("burn cpu")).expect("a row");
        assert!(!other.contains("failed"), "{other}");
        assert!(called.failure().ends_with("error: 1 of the contestants failed\n"));
    }
}

#[test]
fn ctranslate2_takes_part_where_it_is_installed() {
    let (python, files) = (python(""), files());
    let path = python.path().join("python");
    let probe = "case $* in -c*ctranslate2) exit 1 ;; -c*) exit 0 ;; esac";
    fs::write(&path, format!("#!/bin/sh\n{probe}\n{SOUND}")).expect("a script");
    let lack = format!("Without ctranslate2: {} lacks it. `pip install ctranslate2` there, or", text(&path));
    let tokenizer = files.path().join("tokenizer.json");
    let bench = |more: &[&str]| {
        let named = ["bench", "glue", "--model", "tiny", "--rounds", "1", "--python", text(&path)];
        let data = ["--glue", text(files.path()), "--tasks", "sst2", "--tokenizer", text(&tokenizer)];
        call(&[&named[..], &data, more].concat())
    };
    let table = bench(&[]).success();
    assert!(table.contains(&lack), "{table}");
    assert!(!table.contains("\nctranslate2"), "{table}");
    let refused = bench(&["--only", "ctranslate2"]).failure();
    assert!(refused.contains(&lack), "{refused}");
}

#[test]
fn what_cannot_be_measured() {
    let files = files();
    let glue = text(files.path());
    let refused = call(&["bench", "glue", "--model", "tiny", "--glue", glue, "--only", "burn cpu"]).failure();
    assert!(refused.contains("needs a tokenizer: --tokenizer names one"), "{refused}");
    let missing = ["bench", "glue", "--model", "no/such/model", "--glue", glue, "--only", "burn cpu"];
    assert!(call(&missing).failure().contains("no/such/model"));
    let unknown = call(&["bench", "glue", "--model", "tiny", "--glue", glue, "--only", "abacus"]).failure();
    assert!(unknown.contains("there is no contestant \"abacus\"; there are: "), "{unknown}");
}
