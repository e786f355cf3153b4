//! Where tensors lie in a file.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use super::format::safetensors::{LENGTH, MAX_HEADER};
use super::lazy::LazyTensor;
use crate::{Error, Result};

/// The layout of a file before it is written.
pub(super) struct Layout {
    /// The header's length and the header.
    pub header: Vec<u8>,
    /// Where each tensor begins, in bytes from the start of the file.
    pub offsets: Vec<u64>,
    /// The length of the file.
    pub size: u64,
}

impl Layout {
    /// Sorts the tensors into the order of the file, which is that of the safetensors library: wide types first, which
    /// aligns all tensors, then by name.
    pub fn new(path: &Path, tensors: &mut [LazyTensor<'_>]) -> Result<Self> {
        tensors.sort_by(|a, b| (Reverse(a.dtype), &a.name).cmp(&(Reverse(b.dtype), &b.name)));
        let mut end = 0usize;
        let infos = tensors.iter().map(|tensor| {
            let start = end;
            end = end.saturating_add(tensor.size());
            let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
            (tensor.name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) })
        });
        let infos: Vec<(String, TensorInfo)> = infos.collect();
        let starts: Vec<usize> = infos.iter().map(|(_, info)| info.data_offsets.0).collect();

        // Hugging Face's libraries refuse files that do not name a framework.
        let format = HashMap::from([("format".to_string(), "pt".to_string())]);
        let metadata = Metadata::new(Some(format), infos)
            .map_err(|error| Error::Weights { path: path.into(), message: error.to_string() })?;
        let mut json = serde_json::to_vec(&metadata).map_err(Error::json(path))?;
        json.resize(json.len().next_multiple_of(LENGTH), b' ');
        if json.len() as u64 > MAX_HEADER {
            return Err(Error::LongHeader { path: path.into(), bytes: json.len(), most: MAX_HEADER });
        }
        let header = [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat();
        let first = header.len() as u64;
        let offsets = starts.into_iter().map(|start| first + start as u64).collect();
        Ok(Layout { header, offsets, size: first.saturating_add(end as u64) })
    }
}
