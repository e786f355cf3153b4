//! One file of tensors, mapped into memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::TensorView;

use super::format;
use super::hash::hash_source;
use crate::{Dtype, Error, Mistaken, Result, TensorSource};

/// An open file of tensors, which are read when they are viewed. The first bytes tell its format: safetensors, a PyTorch
/// state dict (`torch.save`, old or new), or Flax's MessagePack, whose arrays are named by their path
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
    /// The first byte, from the start of the file.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl TensorFile {
    /// Maps a file and checks its header: every tensor has the size that its shape and type require, and lies within the
    /// file. Nothing in the file is executed, not even in a pickle.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        // SAFETY: the mapping is read-only. Checkpoints are replaced by renaming, which leaves a mapped file alone. As
        // with every reader of this format, nobody may truncate the file in place while it is open.
        let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        if let Some(what) = Mistaken::of(&bytes) {
            return Err(Error::Mistaken { path: path.into(), what });
        }
        let failed = |message| Error::Weights { path: path.into(), message };
        let tensors = format::read(&bytes).map_err(failed)?;
        for (name, extent) in &tensors {
            let view = extent.view(&bytes);
            view.ok_or_else(|| failed(format!("tensor `{name}` does not fit its shape and type")))?;
        }
        Ok(TensorFile { path: path.into(), bytes, tensors })
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A hash of the tensors, as [`Checkpoint::blake3`](crate::checkpoint::Checkpoint::blake3) defines it. Reads them all.
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
        view.ok_or_else(|| Error::no_tensor(self.path.display(), name))
    }
}
