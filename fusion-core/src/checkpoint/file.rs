//! One file of tensors, mapped into memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::TensorView;

use super::format;
use super::hash::hash_source;
use crate::{Dtype, Error, Result, TensorSource};

/// An opened file of tensors; they are read when they are looked at. What it begins with tells its format:
/// safetensors, a PyTorch state dict (`torch.save`, old or new), or Flax's MessagePack, whose arrays are named by their path
/// (`target/encoder/…`).
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Mmap,
    tensors: BTreeMap<String, Extent>,
}

/// Where a tensor lies in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The first and the last byte but one, from the start of the file.
    pub start: usize,
    pub end: usize,
}

impl TensorFile {
    /// Maps a file and checks its header: every tensor has the size that its shape and type say, and lies inside of the
    /// file. Nothing in the file is executed, pickles included.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        // SAFETY: the mapping is read-only. Checkpoints are replaced by renaming, which leaves a mapped file alone; that
        // nobody truncates it in place while it is open is the one thing to be trusted here, as everywhere in this format.
        let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let failed = |message| Error::Weights { path: path.into(), message };
        let tensors = format::read(&bytes).map_err(failed)?;
        for (name, extent) in &tensors {
            let view = extent.view(&bytes);
            view.ok_or_else(|| failed(format!("tensor `{name}` does not fit its shape and type")))?;
        }
        Ok(TensorFile { path: path.into(), bytes, tensors })
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A hash of the tensors, as hexadecimal digits; that of [`Checkpoint::blake3`](crate::checkpoint::Checkpoint::blake3). Reads
    /// them all.
    pub fn blake3(&self) -> Result<String> {
        hash_source(self)
    }
}

impl Extent {
    fn view<'a>(&self, bytes: &'a [u8]) -> Option<TensorView<'a>> {
        let data = bytes.get(self.start..self.end)?;
        TensorView::new(self.dtype, self.shape.clone(), data).ok()
    }
}

impl TensorSource for TensorFile {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn view(&self, name: &str) -> Result<TensorView<'_>> {
        let view = self.tensors.get(name).and_then(|extent| extent.view(&self.bytes));
        view.ok_or_else(|| Error::NoSuchTensor {
            origin: self.path.display().to_string(),
            tensor: name.into(),
        })
    }
}
