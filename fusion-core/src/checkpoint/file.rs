//! One safetensors file, mapped into memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorView};

use super::hash::hash_source;
use crate::{Error, Result, TensorSource};

/// Bytes before the header: its length.
pub(super) const LENGTH: usize = 8;
/// The longest header that is read, as in the safetensors library.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// An opened safetensors file; its tensors are read when they are looked at.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Mmap,
    /// Where the first tensor begins.
    start: usize,
    metadata: Metadata,
}

impl TensorFile {
    /// Maps a file and checks its header: every tensor has the size that its shape and type say, they follow each
    /// other without gaps, and they end where the file ends.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        // SAFETY: the mapping is read-only. Checkpoints are replaced by renaming, which leaves a mapped file alone; that
        // nobody truncates it in place while it is open is the one thing to be trusted here, as everywhere in this format.
        let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let (start, metadata) =
            read_header(&bytes).map_err(|message| Error::Weights { path: path.into(), message })?;
        Ok(TensorFile { path: path.into(), bytes, start, metadata })
    }

    pub fn contains(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// A hash of the tensors, as hexadecimal digits; that of [`Checkpoint::blake3`](crate::Checkpoint::blake3). Reads
    /// them all.
    pub fn blake3(&self) -> Result<String> {
        hash_source(self)
    }
}

impl TensorSource for TensorFile {
    fn names(&self) -> Vec<String> {
        let mut names = self.metadata.offset_keys();
        names.sort_unstable();
        names
    }

    fn view(&self, name: &str) -> Result<TensorView<'_>> {
        let info = self.metadata.info(name).ok_or_else(|| Error::NoSuchTensor {
            origin: self.path.display().to_string(),
            tensor: name.into(),
        })?;
        let corrupt = || Error::Weights {
            path: self.path.clone(),
            message: format!("tensor `{name}` does not fit its shape and type"),
        };
        let (start, end) = info.data_offsets;
        let data = self.bytes.get(self.start..).and_then(|data| data.get(start..end)).ok_or_else(corrupt)?;
        TensorView::new(info.dtype, info.shape.clone(), data).map_err(|_| corrupt())
    }
}

/// The start of the tensors, and the header; or what is wrong with the file.
fn read_header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Err(format!("truncated: {} bytes are too few for a safetensors file", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(format!("not a safetensors file: it starts with a header length of {length} bytes"));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        return Err(format!("truncated: the header takes {length} bytes, but only {} follow", rest.len()));
    };
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|error| format!("invalid header: {error}"))?;
    let (expected, found) = (metadata.data_len(), data.len());
    if expected > found {
        return Err(format!("truncated: the tensors take {expected} bytes, but only {found} are there"));
    }
    if expected < found {
        return Err(format!("{} bytes follow the last tensor", found - expected));
    }
    Ok((LENGTH + header.len(), metadata))
}
