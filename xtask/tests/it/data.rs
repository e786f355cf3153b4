//! What `data check` reports about GLUE's files.

use std::fs;

use crate::program::{call, call_in, directory, sha256, text};

/// Parquet files written by pyarrow.
#[cfg(feature = "parquet")]
fn parquet() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../glue-eval/tests/goldens/parquet")
}

/// CoLA and RTE as TSV files; one of CoLA's rows is cut short.
fn tsv() -> tempfile::TempDir {
    let rte =
        "index\tsentence1\tsentence2\tlabel\n0\tA cat sat.\tIt sat.\tentailment\n1\tA.\tB.\tnot_entailment\n";
    directory(&[
        (
            "CoLA/train.tsv",
            "x\t1\t\tA cat sat.\nx\t0\t*\tA cat sat.\nx\t1\nx\t1\t\tIt rains.\nx\t1\t\tIt rains.\n",
        ),
        ("CoLA/dev.tsv", "x\t1\t\tIt rains.\nx\t1\t\tA dog ran.\n"),
        ("CoLA/test.tsv", "index\tsentence\n0\tIt snows.\n"),
        ("RTE/train.tsv", rte),
        ("RTE/dev.tsv", rte),
    ])
}

/// A tokenizer in which every word is a token.
fn tokenizer(words: &str) -> tempfile::TempDir {
    let special = ["<pad>", "</s>", "<unk>", "<extra_id_0>"];
    let words = special.into_iter().chain(words.split(' ')).enumerate();
    let vocabulary: serde_json::Map<_, _> = words.map(|(id, word)| (word.to_owned(), id.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" },
    });
    directory(&[("tokenizer.json", &tokenizer.to_string())])
}

#[test]
fn files_are_described() {
    let glue = tsv();
    let called = call_in(glue.path(), &["data", "check", "."]);
    assert_eq!(called.code, Some(1));
    insta::assert_snapshot!("tsv", format!("{}\n{}", called.stdout, called.stderr));
    let skipped = call_in(glue.path(), &["data", "check", ".", "--skip-bad-rows"]).success();
    assert_eq!(skipped, called.stdout);

    let tokenizer = tokenizer("A cat sat. It sat");
    let arguments = [
        "data",
        "check",
        ".",
        "--tasks",
        "rte",
        "--tokenizer",
        text(tokenizer.path()),
        "--input-length",
        "8",
    ];
    insta::assert_snapshot!("lengths", call_in(glue.path(), &arguments).success());
}

#[test]
#[cfg(feature = "parquet")]
fn parquet_files_are_described() {
    let folder = parquet();
    insta::assert_snapshot!("parquet", call_in(&folder, &["data", "check", "."]).success());
    let json = call_in(&folder, &["data", "check", ".", "--tasks", "rte", "--json"]).success();
    insta::assert_snapshot!("json", json);
}

#[test]
fn what_cannot_be_checked_says_why() {
    let glue = tsv();
    let check = |arguments: &[&str]| call_in(glue.path(), &[&["data", "check"], arguments].concat());
    fs::create_dir_all(glue.path().join("empty")).expect("a folder");
    let mut messages = String::new();
    for arguments in [&["absent"][..], &["empty"], &[".", "--tasks", "rte,qqp"]] {
        messages += &check(arguments).failure();
    }
    insta::assert_snapshot!("errors", messages);
    #[cfg(feature = "parquet")]
    {
        fs::create_dir_all(glue.path().join("cut/cola")).expect("a folder");
        let whole = fs::read(parquet().join("cola/train-00000-of-00001.parquet")).expect("a file");
        fs::write(glue.path().join("cut/cola/train-00000-of-00001.parquet"), &whole[..whole.len() / 2])
            .expect("written");
        insta::assert_snapshot!("damaged_parquet", check(&["cut"]).failure());
    }
    for arguments in [&["."; 2][..], &[".", "--tasks", "rtt"], &["hf:a/b/c"], &["https://host/glue"], &[""]] {
        let called = check(arguments);
        assert_eq!(called.code, Some(2), "{arguments:?}: {}", called.stderr);
    }
    assert!(check(&["https://host/glue"]).stderr.contains("data fetch https://host/glue --output DIR"));
}

#[test]
fn sums_are_verified() {
    let glue = tsv();
    let check = || call(&["data", "check", text(glue.path()), "--tasks", "rte"]);
    let sums = |text: &str| fs::write(glue.path().join("SHA256SUMS"), text).expect("written");
    let hash = sha256(&fs::read(glue.path().join("RTE/dev.tsv")).expect("a file"));
    sums(&format!("{hash}  RTE/dev.tsv\n"));
    assert!(check().success().ends_with("Files that agree with SHA256SUMS: 1\n"));
    sums(&format!("{hash}  RTE/dev.tsv\n{hash}  CoLA/dev.tsv\n{hash}  QQP/dev.tsv\n"));
    let message = check().failure();
    assert!(message.contains("CoLA/dev.tsv: its hash is "), "{message}");
    assert!(message.contains("QQP/dev.tsv") && !message.contains("RTE/dev.tsv"), "{message}");
    sums("nonsense\n");
    let message = check().failure();
    assert!(message.contains("SHA256SUMS:1: not of the form `HASH  FILE`"), "{message}");
}
