//! The content of folders that commands write, so that a folder may be named where its content is meant:
//! `small` for `small/model`, `vocabulary` for `vocabulary/tokenizer`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// What makes a folder a checkpoint or a tokenizer.
const OWN: [&str; 3] = ["config.json", "tokenizer.json", "spiece.model"];
/// Where trainings, fusions and vocabularies are, in the folders of what made them.
const INSIDE: [&str; 2] = ["model", "tokenizer"];

/// The checkpoint or tokenizer at a path: the path itself, or else what lies in the folder under the name that
/// training, fusing or a recipe's stage gives to it. A path at which nothing of the kind is recognised is
/// returned as it is; whoever reads it knows what is missing.
///
/// # Errors
/// If the folder is a training that has not finished, or a run of several stages.
pub fn content(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() || holds_any(path) {
        return Ok(path.to_owned());
    }
    if let Some(inside) = inside(path) {
        return Ok(inside);
    }
    let place = path.display();
    if let Some(newest) = newest_checkpoint(path) {
        bail!("the training in {place} has not finished; {} is its newest checkpoint", newest.display());
    }
    let stages: Vec<String> = folders(path)
        .into_iter()
        .filter_map(|folder| Some((inside(&folder)?, folder).1.display().to_string()))
        .collect();
    match stages.is_empty() {
        true => Ok(path.to_owned()),
        false => bail!("{place} has several stages, of which one must be named: {}", stages.join(", ")),
    }
}

fn holds_any(folder: &Path) -> bool {
    OWN.iter().any(|name| folder.join(name).is_file())
}

fn inside(folder: &Path) -> Option<PathBuf> {
    INSIDE.iter().map(|name| folder.join(name)).find(|inside| holds_any(inside))
}

fn newest_checkpoint(folder: &Path) -> Option<PathBuf> {
    folders(&folder.join("checkpoints")).into_iter().rfind(|checkpoint| holds_any(checkpoint))
}

/// The folders in a folder, by name.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !hidden(path)).collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary directory");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, "").expect("a file");
        }
        folder
    }

    #[test]
    fn what_was_made_is_found() {
        let run = folder(&[
            "words/tokenizer/tokenizer.json",
            "small/model/config.json",
            "small/checkpoints/step-00000002/config.json",
            "begun/checkpoints/step-00000002/config.json",
            "begun/checkpoints/step-00000010/config.json",
            "other/file",
            "words.json",
        ]);
        let found = |name: &str| {
            let found = content(&run.path().join(name)).map_err(|error| error.to_string());
            let relative = |path: &Path| path.strip_prefix(run.path()).map(|path| path.display().to_string());
            match found {
                Ok(path) => relative(&path).expect("inside"),
                Err(error) => error.replace(&format!("{}/", run.path().display()), ""),
            }
        };
        assert_eq!(found("words"), "words/tokenizer");
        assert_eq!(found("words/tokenizer"), "words/tokenizer");
        assert_eq!(found("words.json"), "words.json");
        assert_eq!(found("small"), "small/model");
        assert_eq!(found("small/model"), "small/model");
        assert_eq!(found("other"), "other");
        assert_eq!(found("nothing"), "nothing");
        let newest = "begun/checkpoints/step-00000010";
        assert_eq!(
            found("begun"),
            format!("the training in begun has not finished; {newest} is its newest checkpoint")
        );
        assert!(
            found("").contains("has several stages, of which one must be named: small, words"),
            "{}",
            found("")
        );
    }
}
