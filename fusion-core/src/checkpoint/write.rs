//! Writing weights, one tensor in memory at a time.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use safetensors::SafeTensorError;
use safetensors::tensor::View;
use serde_json::{Map, Value, json};

use super::{INDEX, WEIGHTS};
use crate::atomic::replace_file;
use crate::{Dtype, Error, Result, TensorSource, write_file_atomically};

/// The size above which weights are split into shards, 5 GB as in Hugging Face's libraries.
pub const DEFAULT_SHARD_SIZE: u64 = 5_000_000_000;

/// A tensor whose bytes are produced when they are written.
pub struct LazyTensor<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    data: Box<dyn Fn() -> Result<Cow<'a, [u8]>> + 'a>,
}

impl<'a> LazyTensor<'a> {
    /// `data` gives the tensor's little-endian bytes, row-major; it is called once.
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        data: impl Fn() -> Result<Cow<'a, [u8]>> + 'a,
    ) -> Self {
        LazyTensor { name: name.into(), dtype, shape: shape.into(), data: Box::new(data) }
    }

    /// A tensor of a source.
    pub fn of(source: &'a dyn TensorSource, name: &str) -> Result<Self> {
        let view = source.view(name)?;
        let data = view.data();
        Ok(LazyTensor::new(name, view.dtype(), view.shape(), move || Ok(data.into())))
    }

    /// The number of bytes; saturates, to be refused when they do not come.
    fn size(&self) -> usize {
        let bits = self.shape.iter().fold(self.dtype.bitsize(), |bits, size| bits.saturating_mul(*size));
        bits / 8
    }
}

/// Writes a source's tensors into a directory, as [`write_weights`] does.
pub fn write_tensors(directory: &Path, source: &dyn TensorSource, shard_size: u64) -> Result<()> {
    let tensors = source.names().iter().map(|name| LazyTensor::of(source, name)).collect::<Result<_>>()?;
    write_weights(directory, tensors, shard_size)
}

/// Writes weights into a directory: `model.safetensors`, or, if they take more than `shard_size` bytes, shards of at
/// most that size (a larger tensor gets its own) and `model.safetensors.index.json`. Every file appears in full.
pub fn write_weights(directory: &Path, tensors: Vec<LazyTensor<'_>>, shard_size: u64) -> Result<()> {
    let size = |tensor: &LazyTensor<'_>| tensor.size() as u64;
    let total = tensors.iter().map(size).fold(0, u64::saturating_add);
    if total <= shard_size {
        return write_tensor_file(&directory.join(WEIGHTS), tensors);
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
    for (index, (_, shard)) in shards.into_iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", index + 1);
        weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::from(file.as_str()))));
        write_tensor_file(&directory.join(file), shard)?;
    }
    weight_map.sort_keys();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    let text = format!("{index:#}\n");
    write_file_atomically(&directory.join(INDEX), text.as_bytes())
}

/// Writes one safetensors file, atomically.
pub fn write_tensor_file(path: &Path, tensors: Vec<LazyTensor<'_>>) -> Result<()> {
    let mut names = HashSet::with_capacity(tensors.len());
    if let Some(tensor) = tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        return Err(Error::DuplicateParameter { parameter: tensor.name.clone() });
    }
    let failure = RefCell::new(None);
    let views = tensors.iter().map(|tensor| (tensor.name.as_str(), Writing { tensor, failure: &failure }));
    // Hugging Face's libraries refuse files that do not say which framework they are for.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    replace_file(path, |temporary| {
        // The library puts a file of its own here, readable by the owner only: restore the usual permissions.
        let permissions = fs::metadata(temporary).map_err(Error::io("look at", path))?.permissions();
        let written = safetensors::serialize_to_file(views, Some(metadata), temporary);
        match (failure.take(), written) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => fs::set_permissions(temporary, permissions).map_err(Error::io("write", path)),
            (None, Err(SafeTensorError::IoError(error))) => Err(Error::io("write", path)(error)),
            (None, Err(error)) => Err(Error::Weights { path: path.into(), message: error.to_string() }),
        }
    })
}

/// A tensor while it is written. The library asks for each tensor's bytes in turn but takes no errors: the first is
/// kept aside, and what is written after it is thrown away.
struct Writing<'a, 'b> {
    tensor: &'b LazyTensor<'a>,
    failure: &'b RefCell<Option<Error>>,
}

impl View for Writing<'_, '_> {
    fn dtype(&self) -> Dtype {
        self.tensor.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data_len(&self) -> usize {
        self.tensor.size()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if self.failure.borrow().is_some() {
            return Cow::Borrowed(&[]);
        }
        let LazyTensor { name, shape, .. } = self.tensor;
        let bytes = (self.tensor.data)().and_then(|bytes| match bytes.len() == self.tensor.size() {
            true => Ok(bytes),
            false => {
                let elements = bytes.len() * 8 / self.tensor.dtype.bitsize();
                Err(Error::ShapeMismatch { tensor: name.clone(), shape: shape.clone(), elements })
            }
        });
        bytes.unwrap_or_else(|error| {
            *self.failure.borrow_mut() = Some(error);
            Cow::Borrowed(&[])
        })
    }
}
