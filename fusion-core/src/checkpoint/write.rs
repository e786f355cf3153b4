//! Writing weights.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::hash::{HashedTensor, hash_weights};
use super::layout::Layout;
use super::lazy::LazyTensor;
use super::pieces::{Destination, Progress, write_pieces};
use super::{INDEX, WEIGHTS};
use crate::atomic::write_file_atomically;
use crate::atomic::{PartialFile, check_space};
use crate::{Error, Result, TensorSource};

/// The size above which weights are split into shards, 5 GB as in Hugging Face's libraries.
pub const DEFAULT_SHARD_SIZE: u64 = 5_000_000_000;

/// Writes a source's tensors into a directory, as [`write_weights`] does.
pub fn write_tensors(directory: &Path, source: &dyn TensorSource, shard_size: u64) -> Result<String> {
    let tensors = source.names().iter().map(|name| LazyTensor::of(source, name)).collect::<Result<_>>()?;
    write_weights(directory, tensors, shard_size, None)
}

/// Writes weights into a directory: `model.safetensors`, or, if they take more than `shard_size` bytes, shards of at
/// most that size (a larger tensor gets its own) and `model.safetensors.index.json`. Every file appears in full. Returns
/// the hash of the weights, [`Checkpoint::blake3`](crate::checkpoint::Checkpoint::blake3).
///
/// # Errors
/// [`Error::NoSpace`] before anything is produced, where the file system can tell.
pub fn write_weights(
    directory: &Path,
    tensors: Vec<LazyTensor<'_>>,
    shard_size: u64,
    progress: Option<&Progress<'_>>,
) -> Result<String> {
    let size = |tensor: &LazyTensor<'_>| tensor.size() as u64;
    let total = tensors.iter().map(size).fold(0, u64::saturating_add);
    if total <= shard_size {
        return write_files(vec![(directory.join(WEIGHTS), tensors)], progress);
    }
    let mut shards: Vec<(u64, Vec<LazyTensor<'_>>)> = Vec::new();
    for tensor in tensors {
        let added = size(&tensor);
        match shards.last_mut() {
            Some((filled, shard)) if filled.saturating_add(added) <= shard_size => {
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
    let hash = write_files(files.collect(), progress)?;
    weight_map.sort_keys();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    let text = format!("{index:#}\n");
    write_file_atomically(&directory.join(INDEX), text.as_bytes())?;
    Ok(hash)
}

/// Writes one safetensors file, atomically. Returns the hash of its tensors, [`TensorFile::blake3`](crate::checkpoint::TensorFile::blake3).
pub fn write_tensor_file(path: &Path, tensors: Vec<LazyTensor<'_>>) -> Result<String> {
    write_tensor_file_with_progress(path, tensors, None)
}

/// The same with somebody to tell of the bytes that are written, who may stop the writing.
pub fn write_tensor_file_with_progress(
    path: &Path,
    tensors: Vec<LazyTensor<'_>>,
    progress: Option<&Progress<'_>>,
) -> Result<String> {
    write_files(vec![(path.into(), tensors)], progress)
}

/// Writes safetensors files of one directory: each is given its name when all are complete.
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

/// Creates the files with their headers and takes the space for all of them, before anything is produced.
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
