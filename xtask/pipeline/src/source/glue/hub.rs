//! GLUE on the Hugging Face Hub, through its cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fusion_core::atomic::write_file_atomically;
use glue_eval::data::Split;
use glue_eval::{GlueError, Task};

use super::{Checksums, Fetched};
use crate::source::digest::sha256;
use crate::source::hub::{Environment, Hub, HubName, HubRepo, RepoType};

/// The directory in the hub's cache with the Parquet files of these tasks. Cached files are not looked up
/// again: the same name means the same files until the cache is cleared or another revision is requested.
pub fn fetch(name: &HubName, tasks: &[Task]) -> Result<PathBuf> {
    let environment = Environment::here()?;
    let cache = environment.cache();
    let dataset = HubRepo { name: name.clone(), kind: RepoType::Dataset };
    match dataset.cached(&cache).filter(|directory| is_whole(directory, tasks)) {
        Some(directory) => Ok(directory),
        None if environment.is_offline => dataset.refuse_offline(&cache),
        None => download(&dataset.connect(&environment, &cache)?, name, tasks),
    }
}

/// Whether everything needed for training and answering is present. Test sets may be missing: not every
/// dataset has them.
fn is_whole(directory: &Path, tasks: &[Task]) -> bool {
    let is_there = |task, split: Split| split.find(task, directory).is_ok();
    tasks
        .iter()
        .all(|&task| Split::all(task).filter(|split| split.is_labelled()).all(|split| is_there(task, split)))
}

/// Looks up everything before fetching anything. The cache records the revision only when everything is
/// there.
fn download(hub: &Hub, name: &HubName, tasks: &[Task]) -> Result<PathBuf> {
    let mut wanted = Vec::new();
    for &task in tasks {
        for split in Split::all(task) {
            let files: Vec<&String> =
                hub.files().iter().filter(|file| split.is_parquet(task, file)).collect();
            let example = split.parquet(task);
            ensure!(
                !files.is_empty() || !split.is_labelled(),
                "{name} has no {}, so it is not laid out as nyu-mll/glue is",
                example.display()
            );
            wanted.extend(files);
        }
    }
    for file in wanted {
        hub.file(file)?;
    }
    hub.remember()
}

/// Copies a split's Parquet files into a folder; returns none if there are none.
pub fn copy(task: Task, split: Split, from: &Path, to: &Path, known: &Checksums) -> Result<Vec<Fetched>> {
    let files = match split.find(task, from) {
        Err(GlueError::MissingFiles { .. }) if !split.is_labelled() => return Ok(Vec::new()),
        files => files?,
    };
    let copied = files.iter().map(|file| {
        let name = format!("{}/{}", task.spec().name, file.file_name().unwrap_or_default().display());
        let path = to.join(&name);
        let (_, hash) = sha256(file)?;
        let anew = !path.exists() || sha256(&path)?.1 != hash;
        if anew {
            if path.exists() {
                known.check_ours(&name, &path)?;
            }
            let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            write_file_atomically(&path, &bytes)?;
        }
        Ok(Fetched { name, hash, anew })
    });
    copied.collect()
}
