//! Fetching a model into the hub's cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fusion_core::checkpoint::ShardIndex;

use super::files;
use crate::source::hub::{Cache, Environment, HubName, HubRepo, RepoType};
use crate::{Note, Watch};

const CONFIG: &str = "config.json";
/// Weights as a single file or an index of shards, in order of preference.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The files of which a tokenizer has one at least.
const VOCABULARIES: [&str; 2] = ["tokenizer.json", "spiece.model"];

/// The directory of the model's files in the hub's cache. A cached model is not looked up again: the same
/// name means the same weights until the cache is cleared or another revision is requested.
pub fn fetch_model(name: &HubName, watch: &dyn Watch) -> Result<PathBuf> {
    let environment = Environment::here()?;
    let cache = environment.cache();
    let model = HubRepo { name: name.clone(), kind: RepoType::Model };
    let cached = model.cached(&cache).filter(|directory| is_whole(directory));
    let has_tokenizer = |directory: &Path| files::tokenizer_files().any(|name| directory.join(name).exists());
    let has_none =
        |directory: &Path| VOCABULARIES.iter().all(|name| model.is_known_to_lack(&cache, directory, name));
    match cached {
        Some(directory) if environment.is_offline || has_tokenizer(&directory) || has_none(&directory) => {
            Ok(directory)
        }
        None if environment.is_offline => model.refuse_offline(&cache),
        None => download(&environment, &cache, model),
        // Another program did not need the tokenizer, or there is none.
        Some(directory) => download(&environment, &cache, model).or_else(|error| {
            watch.note(&name.to_string(), &Note::FromCache { because: &error });
            Ok(directory)
        }),
    }
}

/// Whether a cache directory holds a complete model.
fn is_whole(directory: &Path) -> bool {
    let weights = WEIGHTS.into_iter().find(|name| directory.join(name).exists());
    let shards_are_there = |index: &str| {
        let index = ShardIndex::read(&directory.join(index));
        index.is_ok_and(|index| index.files().iter().all(|shard| directory.join(shard).exists()))
    };
    directory.join(CONFIG).exists()
        && weights.is_some_and(|weights| !is_index(weights) || shards_are_there(weights))
}

fn is_index(name: &str) -> bool {
    name.ends_with(".index.json")
}

/// Fetches a model's files at one commit. The cache records the revision only when all are there.
fn download(environment: &Environment, cache: &Cache, model: HubRepo) -> Result<PathBuf> {
    let name = model.name.clone();
    let hub = model.connect(environment, cache)?;
    ensure!(hub.has(CONFIG), "{name} has no config.json, so it is no model that can be read");
    let weights = WEIGHTS.into_iter().find(|weights| hub.has(weights));
    let weights =
        weights.with_context(|| format!("{name} has no weights: looked for {}", WEIGHTS.join(", ")))?;

    for name in files::fetched().filter(|name| hub.has(name)) {
        hub.file(name)?;
    }
    let first = hub.file(weights)?;
    if is_index(weights) {
        for shard in ShardIndex::read(&first)?.files() {
            hub.file(shard)?;
        }
    }
    hub.file(CONFIG)?;
    hub.remember()
}
