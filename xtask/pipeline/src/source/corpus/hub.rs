//! Datasets on the Hugging Face Hub as text. Files lie in the hub's cache, which other programs share.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use t5_model::text::{Corpus, RemoteFile};
use walkdir::WalkDir;

use super::choose::{is_pattern, matching};
use crate::source::hub::{Environment, Hub, HubName, HubRepo, RepoType};

/// `hf:ORG/NAME[@REVISION][/PATH]`: files of a dataset on the Hugging Face Hub.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The dataset.
    pub name: HubName,
    /// A file, a folder or a glob pattern in it; empty for the dataset itself.
    pub path: String,
}

impl FromStr for Dataset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix(HubName::PREFIX).unwrap_or(text);
        let parts: Vec<&str> = rest.split('/').collect();
        // `a/b@refs/pr/1` is a revision of three parts, as in huggingface_hub.
        let of_name = match parts.get(1).and_then(|name| name.split_once('@')) {
            Some((_, "refs")) => 4,
            _ => 2,
        };
        let (name, path) = parts.split_at(of_name.min(parts.len()));
        let name = name.join("/").parse().map_err(|_| {
            format!(
                "{text:?} is not of the form hf:ORG/NAME[@REVISION][/PATH], where PATH may have wildcards"
            )
        })?;
        Ok(Dataset { name, path: path.join("/").trim_matches('/').to_owned() })
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

/// The texts of a dataset. Offline, those that are in the cache.
pub fn open(dataset: &Dataset) -> Result<Corpus> {
    let environment = Environment::here()?;
    let cache = environment.cache();
    let repo = HubRepo { name: dataset.name.clone(), kind: RepoType::Dataset };
    if environment.is_offline {
        let Some(directory) = repo.cached(&cache) else { return repo.refuse_offline(&cache) };
        let files = files_in(&directory);
        let chosen = choose(dataset, &files)?;
        let paths: Vec<String> =
            chosen.into_iter().map(|file| directory.join(file).display().to_string()).collect();
        return Ok(Corpus::open(&paths)?);
    }
    let hub = Arc::new(repo.connect(&environment, &cache)?);
    let chosen = choose(dataset, hub.files())?;
    // Other programs, and this one without a network, find by it what is fetched from now on.
    hub.remember()?;
    let file = |path: &str| -> Arc<dyn RemoteFile> {
        let name = format!("{}/{path}", dataset.name);
        Arc::new(HubFile { hub: Arc::clone(&hub), path: path.to_owned(), name })
    };
    Ok(Corpus::from_remote(chosen.into_iter().map(file).collect()))
}

fn choose<'a>(dataset: &Dataset, files: &'a [String]) -> Result<Vec<&'a str>> {
    let files = files.iter().map(String::as_str);
    let found = matching(files.clone(), &dataset.path);
    let mut found = found.with_context(|| dataset.to_string())?;
    let is_file = found == [dataset.path.as_str()];
    if !is_pattern(&dataset.path) && !is_file {
        found = training(found).with_context(|| dataset.to_string())?;
    }
    ensure!(!found.is_empty(), "{dataset} holds no text; of {}", some(files));
    Ok(found)
}

/// Some files, so that a user sees what there is.
fn some<'a>(files: impl Iterator<Item = &'a str> + Clone) -> String {
    let count = files.clone().count();
    let first: Vec<&str> = files.filter(|file| !file.starts_with('.')).take(5).collect();
    format!("its {count} files, the first are: {}", first.join(", "))
}

fn files_in(directory: &Path) -> Vec<String> {
    let entries = WalkDir::new(directory).follow_links(true).sort_by_file_name().into_iter().flatten();
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.filter_map(|file| Some(file.path().strip_prefix(directory).ok()?.to_str()?.to_owned())).collect()
}

/// A file of a dataset.
struct HubFile {
    hub: Arc<Hub>,
    path: String,
    name: String,
}

impl RemoteFile for HubFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Option<u64> {
        None
    }

    fn version(&self) -> &str {
        self.hub.commit()
    }

    fn fetch(&self) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
        Ok(self.hub.file(&self.path)?)
    }
}

impl fmt::Debug for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What is trained on, of the texts of a dataset on the hub: by their names, as `datasets` tells splits apart. They have
/// to lie in one folder: others are other configurations.
pub fn training(texts: Vec<&str>) -> Result<Vec<&str>> {
    let is_of = |text: &str, words: &[&str]| {
        text.split(|c: char| !c.is_ascii_alphabetic())
            .any(|word| words.contains(&word.to_lowercase().as_str()))
    };
    let train: Vec<&str> = texts.iter().copied().filter(|text| is_of(text, &["train", "training"])).collect();
    let others = ["validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"];
    let texts = match train.is_empty() {
        true => texts.into_iter().filter(|text| !is_of(text, &others)).collect(),
        false => train,
    };
    let folders: BTreeSet<&str> =
        texts.iter().map(|text| text.rsplit_once('/').map_or("", |(folder, _)| folder)).collect();
    if folders.len() > 1 {
        let mut names: Vec<&str> = folders.iter().copied().filter(|folder| !folder.is_empty()).collect();
        let more = names.len().saturating_sub(5);
        names.truncate(5);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        bail!(
            "its texts lie in {} folders, of which one must be named behind a slash: {}{more}",
            folders.len(),
            names.join(", ")
        );
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets() {
        let read = |text: &str| text.parse::<Dataset>().map(|it| (it.name.to_string(), it.path));
        let is = |text: &str, name: &str, path: &str| {
            assert_eq!(read(text), Ok((name.to_owned(), path.to_owned())))
        };
        is("hf:allenai/c4", "hf:allenai/c4", "");
        is("hf:allenai/c4/en", "hf:allenai/c4", "en");
        is("hf:allenai/c4@main/en/c4-train.*.json.gz", "hf:allenai/c4@main", "en/c4-train.*.json.gz");
        is("hf:a/b@refs/pr/1/en/", "hf:a/b@refs/pr/1", "en");
        is("hf:squad", "hf:squad", "");
        for text in ["hf:", "hf:a b", "hf:../a", "hf:a/b@/x"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    /// The layouts of allenai/c4, wikitext, and wikimedia/wikipedia.
    #[test]
    fn splits() {
        let chosen = |files: &[&'static str]| {
            training(files.to_vec()).map(|it| it.join(" ")).unwrap_or_else(|error| error.to_string())
        };
        let c4 = ["en/c4-train.00000-of-01024.json.gz", "en/c4-validation.00000-of-00008.json.gz"];
        assert_eq!(chosen(&c4), c4[0]);
        assert_eq!(
            chosen(&["w/test-00000-of-00001.parquet", "w/train-00000-of-00001.parquet"]),
            "w/train-00000-of-00001.parquet"
        );
        assert_eq!(chosen(&["data/train/0.json", "data/test/0.json"]), "data/train/0.json");
        assert_eq!(chosen(&["books.txt", "test.txt"]), "books.txt");
        assert_eq!(chosen(&["training-of-dogs.txt"]), "training-of-dogs.txt");
        assert_eq!(
            chosen(&["20231101.ab/train-0.parquet", "20231101.en/train-0.parquet"]),
            "its texts lie in 2 folders, of which one must be named behind a slash: 20231101.ab, 20231101.en"
        );
    }
}
