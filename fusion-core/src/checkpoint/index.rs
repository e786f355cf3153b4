//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde_json::Value;

use super::read_object;
use crate::{Error, Result};

/// An index of shards, all of which lie beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIndex {
    /// Each tensor's file.
    files: BTreeMap<String, String>,
}

impl ShardIndex {
    pub fn read(path: &Path) -> Result<Self> {
        let invalid = |message: &str| Error::Json { path: path.into(), message: message.into() };
        let content = read_object(path)?;
        let map = content.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| invalid("there is no object `weight_map`"))?;
        let mut files = BTreeMap::new();
        for (tensor, file) in map {
            let file =
                file.as_str().ok_or_else(|| invalid(&format!("`weight_map.{tensor}` is not a file name")))?;
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

    /// Each tensor with its shard.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(tensor, file)| (tensor.as_str(), file.as_str()))
    }
}

/// An index must not lead out of its directory.
fn is_name(file: &str) -> bool {
    let mut components = Path::new(file).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(name)), None) if name == file)
}
