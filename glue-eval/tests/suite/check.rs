//! What is reported about a task's files.

use std::fs;
use std::path::Path;

use glue_eval::check::{Checker, LISTED_BAD_ROWS, LabelCount, Lengths, SplitCheck};
use glue_eval::data::Split;
use glue_eval::{GlueError, Task};

use crate::session::tokenizer;

/// A folder with the files of one task.
fn folder(task: Task, files: &[(&str, &str)]) -> tempfile::TempDir {
    let glue = tempfile::tempdir().unwrap();
    let folder = glue.path().join(task.spec().title);
    fs::create_dir(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    glue
}

fn checks(task: Task, glue: &Path, input_length: Option<usize>) -> Vec<Result<SplitCheck, GlueError>> {
    let tokenizer = input_length.map(|_| tokenizer());
    let mut checker = Checker::new(task, tokenizer.as_ref(), input_length.unwrap_or(0));
    Split::all(task).map(|split| checker.check(split, glue)).collect()
}

fn labels(check: &SplitCheck) -> Vec<(&str, usize)> {
    check.labels.iter().map(|LabelCount { label, rows }| (label.as_str(), *rows)).collect()
}

#[test]
fn repetitions_contradictions_and_overlaps_are_counted() {
    let train = "sentence\tlabel\ngripping\t1\ndull\t0\ngripping\t1\ngripping\t0\nlong\t0\nlong\t0\nbad\tx\n";
    let dev = "sentence\tlabel\ngripping\t1\nnever boring\t1\ndull\t1\ngripping\t1\n";
    let test = "index\tsentence\n0\tlong\n1\ta film\n2\ta film\n";
    let glue = folder(Task::Sst2, &[("train.tsv", train), ("dev.tsv", dev), ("test.tsv", test)]);
    let checks = checks(Task::Sst2, glue.path(), None);
    let [train, dev, test] = [0, 1, 2].map(|split| checks[split].as_ref().unwrap());

    assert_eq!([train.rows, train.bad_rows, train.official_rows], [7, 1, 67_349]);
    assert_eq!([train.duplicates, train.conflicts], [2, 1]);
    assert_eq!(labels(train), [("negative", 4), ("positive", 2)]);
    assert_eq!(train.in_train, None);
    assert_eq!([dev.rows, dev.duplicates, dev.conflicts, dev.official_rows], [4, 1, 0, 872]);
    // Regardless of their labels.
    assert_eq!(dev.in_train, Some(3));
    assert_eq!([test.rows, test.duplicates, test.conflicts, test.official_rows], [3, 1, 0, 1_821]);
    assert_eq!((test.in_train, labels(test)), (Some(1), vec![]));
    assert!(checks.iter().flatten().all(|check| check.lengths.is_none()));
}

#[test]
fn pairs_are_the_same_only_as_pairs_and_scores_are_counted_in_ranges() {
    let train =
        "sentence1\tsentence2\tscore\nA.\tB.\t0.0\nB.\tA.\t1.0\nA.\tB.\t0.999\nA.\tC.\t4.2\nC.\tA.\t5.0\n";
    let glue = folder(Task::Stsb, &[("train.tsv", train)]);
    let checks = checks(Task::Stsb, glue.path(), None);
    let train = checks[0].as_ref().unwrap();
    assert_eq!([train.duplicates, train.conflicts], [0, 1]);
    assert_eq!(labels(train), [("0–1", 2), ("1–2", 1), ("2–3", 0), ("3–4", 0), ("4–5", 2)]);
    let missing = checks[1].as_ref().unwrap_err();
    assert!(matches!(missing, GlueError::MissingFiles { task: Task::Stsb, .. }), "{missing}");
}

/// `sst2`, `sentence:`, the words, and the end token.
#[test]
fn lengths_are_those_of_whole_prompts() {
    let words = |count: usize| vec!["dull"; count].join(" ");
    let rows: String = (1..=20).map(|count| format!("{}\t0\n", words(count))).collect();
    let glue = folder(Task::Sst2, &[("train.tsv", &format!("sentence\tlabel\n{rows}"))]);
    let lengths = |limit| checks(Task::Sst2, glue.path(), Some(limit)).remove(0).unwrap().lengths;
    assert_eq!(lengths(21), Some(Lengths { median: 13, percentile_95: 22, max: 23, truncated: 2 }));
    assert_eq!(lengths(23), Some(Lengths { median: 13, percentile_95: 22, max: 23, truncated: 0 }));
}

#[test]
fn bad_rows_are_listed_up_to_a_limit_and_all_counted() {
    let rows = "a film\t2\n".repeat(LISTED_BAD_ROWS + 5);
    let glue = folder(Task::Sst2, &[("train.tsv", &format!("sentence\tlabel\n{rows}"))]);
    let train = checks(Task::Sst2, glue.path(), Some(512)).remove(0).unwrap();
    assert_eq!((train.bad_rows, train.bad.len()), (LISTED_BAD_ROWS + 5, LISTED_BAD_ROWS));
    assert_eq!((train.rows, train.lengths), (LISTED_BAD_ROWS + 5, None));
    let first = serde_json::to_value(&train.bad[0]).unwrap();
    assert_eq!(first["line"], 2);
    assert!(first["path"].as_str().unwrap().ends_with("SST-2/train.tsv"), "{first}");
    assert!(first["problem"].as_str().unwrap().contains("unknown label \"2\""), "{first}");
}
