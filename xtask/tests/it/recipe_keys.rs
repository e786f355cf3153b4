//! What is written about recipes' keys is what the program reads. With UPDATE_DOCS=1, it is written anew.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::call;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("a file of the project")
}

fn holds(path: &str, expected: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(path), expected).expect("written");
    }
    assert!(read(path) == expected, "{path} is out of date; run this test with UPDATE_DOCS=1");
}

/// Replaces what stands between a comment and the next `<!-- end -->`.
fn with_block(text: &str, begin: &str, block: &str) -> String {
    let (before, rest) = text.split_once(begin).expect("the block's comment");
    let (_, after) = rest.split_once("<!-- end -->").expect("the block's end");
    format!("{before}{begin}\n\n{}\n\n<!-- end -->{after}", block.trim_end())
}

#[test]
fn the_documentation_lists_every_key() {
    let keys = call(&["recipe", "keys"]).success();
    let minimal = format!("```toml\n{}```", read("recipes/minimal.toml"));
    let document = with_block(&read("docs/recipes.md"), "<!-- keys -->", &keys);
    holds("docs/recipes.md", &with_block(&document, "<!-- file: recipes/minimal.toml -->", &minimal));
}

#[test]
fn editors_have_the_schema() {
    holds("recipes/schema.json", &call(&["recipe", "schema"]).success());
}

/// Every key says what it means, and no key of a setting that serde renames is missing.
#[test]
fn every_key_is_explained() {
    let keys = call(&["recipe", "keys"]).success();
    let rows: Vec<Vec<&str>> = keys
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() > 80, "{} keys", rows.len());
    for row in &rows {
        let [name, kind, _, about] = row.as_slice() else { panic!("{row:?}") };
        assert!(!kind.is_empty() && about.ends_with(['.', ')']) && about.len() > 5, "{name}: {row:?}");
    }
    for key in ["learning_rate", "schedule.minimum", "optimizer.weight_decay", "device", "calibrate_examples"]
    {
        assert!(rows.iter().any(|row| row[0] == format!("`{key}`")), "{key}");
    }
}
