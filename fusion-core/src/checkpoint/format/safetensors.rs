//! The header of safetensors files: a length, and a JSON object of names, types, shapes and offsets.

use safetensors::tensor::Metadata;

use super::{Extent, Tensors};

/// Bytes before the header: its length.
pub(in super::super) const LENGTH: usize = 8;
/// The longest header that is read, as in the safetensors library.
pub(in super::super) const MAX_HEADER: u64 = 100_000_000;

/// The tensors follow each other without gaps, and end where the file ends.
pub(super) fn read(bytes: &[u8]) -> Result<Tensors, String> {
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
    let data = LENGTH + header.len();
    let extent = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (start, end) = info.data_offsets;
        let (dtype, shape) = (info.dtype, info.shape.clone());
        (name, Extent { dtype, shape, start: data.saturating_add(start), end: data.saturating_add(end) })
    };
    Ok(metadata.tensors().into_iter().map(extent).collect())
}
