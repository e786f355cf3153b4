//! `model.safetensors.index.json`, which says which shard holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde_json::{Map, Value};

use crate::{Error, Result, json};

/// An index of shards, all of which lie in its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIndex {
    /// Each tensor's file.
    files: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index. A name that leads out of the directory is an error.
    pub fn read(path: &Path) -> Result<Self> {
        let content: Map<String, Value> = json::read(path)?;
        let map = content.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| Error::NoWeightMap { path: path.into() })?;
        let mut files = BTreeMap::new();
        for (tensor, file) in map {
            let not_a_name = || Error::NotAFileName { path: path.into(), tensor: tensor.clone() };
            let file = file.as_str().ok_or_else(not_a_name)?;
            if !is_name(file) {
                return Err(Error::ShardName { path: path.into(), file: file.into() });
            }
            files.insert(tensor.clone(), file.into());
        }
        Ok(ShardIndex { files })
    }

    /// The shards' names, sorted.
    pub fn files(&self) -> BTreeSet<&str> {
        self.files.values().map(String::as_str).collect()
    }

    /// The name of each tensor, with the name of its shard.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(tensor, file)| (tensor.as_str(), file.as_str()))
    }
}

/// Whether a name is that of a file in the same directory.
fn is_name(file: &str) -> bool {
    let mut components = Path::new(file).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(name)), None) if name == file)
}
