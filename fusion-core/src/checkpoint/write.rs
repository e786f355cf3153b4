//! Writing weights.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::hash::{HashedTensor, hash_weights};
use super::layout::Layout;
use super::lazy::LazyTensor;
use super::pieces::{Destination, Progress, write_pieces};
use super::{INDEX, WEIGHTS};
use crate::atomic::{PartialFile, check_space};
use crate::{Dtype, Error, Result, json};

/// A type that weights can be converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum WeightType {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE 754.
    F16,
    /// 16 bits, with the range of 32.
    Bf16,
}

impl WeightType {
    /// The type in a file.
    pub fn dtype(self) -> Dtype {
        match self {
            WeightType::F32 => Dtype::F32,
            WeightType::F16 => Dtype::F16,
            WeightType::Bf16 => Dtype::BF16,
        }
    }
}

/// In bytes.
const DEFAULT_SHARD_SIZE: u64 = 5_000_000_000;

/// Writes tensors to safetensors files, each of which appears in full or not at all.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    shard_size: u64,
    progress: Option<&'a Progress<'a>>,
}

impl Default for Writer<'_> {
    /// Writes shards of at most 5 GB, as Hugging Face's libraries do, and reports no progress.
    fn default() -> Self {
        Writer { shard_size: DEFAULT_SHARD_SIZE, progress: None }
    }
}

impl<'a> Writer<'a> {
    /// Splits weights that take more than `bytes` into shards of at most that size; a larger tensor gets a shard to itself.
    pub fn shard_size(self, bytes: u64) -> Self {
        Writer { shard_size: bytes, ..self }
    }

    /// Reports the bytes written to `progress`, which may stop the writing.
    pub fn progress(self, progress: &'a Progress<'a>) -> Self {
        Writer { progress: Some(progress), ..self }
    }

    /// Writes one file, whatever its size. Returns the hash of its tensors,
    /// [`TensorFile::blake3`](crate::checkpoint::TensorFile::blake3).
    ///
    /// # Errors
    /// [`Error::NoSpace`] before anything is produced, where the file system can tell.
    pub fn file(&self, path: &Path, tensors: Vec<LazyTensor<'_>>) -> Result<String> {
        write_files(vec![(path.into(), tensors)], self.progress)
    }

    /// Writes a checkpoint's weights into a directory: `model.safetensors`, or shards and
    /// `model.safetensors.index.json`. Returns the hash of the weights,
    /// [`Checkpoint::blake3`](crate::checkpoint::Checkpoint::blake3).
    ///
    /// # Errors
    /// [`Error::NoSpace`] before anything is produced, where the file system can tell.
    pub fn weights(&self, directory: &Path, tensors: Vec<LazyTensor<'_>>) -> Result<String> {
        let size = |tensor: &LazyTensor<'_>| tensor.size() as u64;
        let total = tensors.iter().map(size).fold(0, u64::saturating_add);
        if total <= self.shard_size {
            return self.file(&directory.join(WEIGHTS), tensors);
        }
        let mut shards: Vec<(u64, Vec<LazyTensor<'_>>)> = Vec::new();
        for tensor in tensors {
            let added = size(&tensor);
            match shards.last_mut() {
                Some((filled, shard)) if filled.saturating_add(added) <= self.shard_size => {
                    *filled += added;
                    shard.push(tensor);
                }
                _ => shards.push((added, vec![tensor])),
            }
        }
        let count = shards.len();
        let mut weight_map = Map::new();
        let files = shards.into_iter().enumerate().map(|(index, (_, shard))| {
            let file = format!("model-{:05}-of-{count:05}.safetensors", index + 1);
            weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::from(file.as_str()))));
            (directory.join(file), shard)
        });
        let hash = write_files(files.collect(), self.progress)?;
        weight_map.sort_keys();
        let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        json::write(&directory.join(INDEX), &index)?;
        Ok(hash)
    }
}

/// Writes safetensors files into one directory. They get their names once all are complete.
fn write_files(
    mut files: Vec<(PathBuf, Vec<LazyTensor<'_>>)>,
    progress: Option<&Progress<'_>>,
) -> Result<String> {
    let tensors = || files.iter().flat_map(|(_, tensors)| tensors);
    let mut names = HashSet::new();
    if let Some(tensor) = tensors().find(|tensor| !names.insert(&tensor.name)) {
        return Err(Error::DuplicateParameter { parameter: tensor.name.clone() });
    }
    tensors().try_for_each(LazyTensor::check_size)?;
    let layouts = files.iter_mut().map(|(path, tensors)| Layout::new(path, tensors));
    let layouts = layouts.collect::<Result<Vec<_>>>()?;
    let partial = reserve(&files, &layouts)?;

    let mut destinations = Vec::new();
    for (((path, tensors), layout), partial) in files.iter().zip(&layouts).zip(&partial) {
        let places = tensors.iter().zip(&layout.offsets);
        let file = partial.file();
        destinations.extend(places.map(|(tensor, &offset)| Destination { tensor, path, file, offset }));
    }
    let hashes = write_pieces(&destinations, progress)?;
    let hashed = destinations.iter().zip(hashes).map(|(Destination { tensor, .. }, hash)| {
        let LazyTensor { name, dtype, shape, .. } = tensor;
        HashedTensor { name, dtype: *dtype, shape, hash }
    });
    let hash = hash_weights(hashed.collect());
    drop(destinations);
    partial.into_iter().try_for_each(PartialFile::commit)?;
    Ok(hash)
}

/// Creates the files with their headers and reserves space for all of them before anything is produced.
fn reserve(files: &[(PathBuf, Vec<LazyTensor<'_>>)], layouts: &[Layout]) -> Result<Vec<PartialFile>> {
    let partial = files.iter().map(|(path, _)| PartialFile::create(path)).collect::<Result<Vec<_>>>()?;
    if let Some((path, _)) = files.first() {
        let size = layouts.iter().map(|layout| layout.size).fold(0, u64::saturating_add);
        check_space(path, size)?;
    }
    for (partial, layout) in partial.iter().zip(layouts) {
        partial.reserve(layout.size)?;
        partial.write_at(&layout.header, 0)?;
    }
    Ok(partial)
}
