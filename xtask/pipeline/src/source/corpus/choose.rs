//! Which of many files elsewhere are the text that a name means.

use std::path::Path;

use anyhow::{Result, bail};
use glob::{MatchOptions, Pattern};
use t5_model::text::file_kind;

/// Whether a path has wildcards.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// The texts among some files, given by their paths: the file at `path`, those that match it as a pattern, or those in
/// it as a folder. Sorted.
pub fn matching<'a>(files: impl IntoIterator<Item = &'a str>, path: &str) -> Result<Vec<&'a str>> {
    let mut files: Vec<&str> = files.into_iter().collect();
    if !is_pattern(path) && files.contains(&path) {
        if !is_text(path) {
            bail!("its name does not end as that of a text does");
        }
        files.retain(|file| *file == path);
        return Ok(files);
    }
    files.retain(|file| is_text(file));
    if is_pattern(path) {
        let pattern = Pattern::new(path)?;
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        files.retain(|file| pattern.matches_with(file, options));
    } else {
        let folder = format!("{}/", path.trim_end_matches('/'));
        files.retain(|file| folder == "/" || file.starts_with(&folder));
        files.retain(|file| !is_about(file));
        let is_table = |file: &str| matches!(file_kind(Path::new(file)), Some("csv" | "tsv" | "parquet"));
        if files.iter().any(|file| !is_table(file)) {
            files.retain(|file| !is_table(file));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn is_text(path: &str) -> bool {
    let is_hidden = path.split('/').any(|part| part.starts_with('.') || part.starts_with("__"));
    file_kind(Path::new(path)).is_some() && !is_hidden
}

/// Whether a file is about a dataset rather than of it.
fn is_about(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    ["dataset_infos.json", "dataset_info.json", "state.json", "config.json", "package.json"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_store() {
        let files =
            ["a/1.json.gz", "a/2.json.gz", "a/b/3.txt", "a/t.csv", "a/.x/4.txt", "README.md", "c/5.parquet"];
        let found = |path: &str| {
            matching(files, path).map(|found| found.join(" ")).unwrap_or_else(|error| error.to_string())
        };
        assert_eq!(found(""), "a/1.json.gz a/2.json.gz a/b/3.txt");
        assert_eq!(found("a/"), "a/1.json.gz a/2.json.gz a/b/3.txt");
        assert_eq!(found("a/*.json.gz"), "a/1.json.gz a/2.json.gz");
        assert_eq!(found("a/**/*.txt"), "a/b/3.txt");
        assert_eq!(found("c"), "c/5.parquet");
        assert_eq!(found("a/t.csv"), "a/t.csv");
        assert_eq!(found("README.md"), "its name does not end as that of a text does");
        assert_eq!(found("d"), "");
    }
}
