//! The formats of tensor files. Each has a reader that turns a file's bytes into a table of where its tensors lie; what
//! it allocates is in proportion to the header, and nothing is executed. Errors say what is wrong with the file, whose
//! name the caller adds.

mod flax;
mod pytorch;
pub(super) mod safetensors;

use std::collections::BTreeMap;

use super::file::Extent;

type Tensors = BTreeMap<String, Extent>;

/// Reads the table of a file's tensors, in the format that its first bytes show. What shows none is taken for safetensors.
pub(super) fn read(bytes: &[u8]) -> Result<Tensors, String> {
    // A safetensors file has a length of 8 bytes and then a JSON object: only there can a length be mistaken.
    match bytes {
        [_, _, _, _, _, _, _, _, b'{', ..] => safetensors::read(bytes),
        [b'P', b'K', 3, 4, ..] => pytorch::read_archive(bytes),
        bytes if pytorch::is_legacy(bytes) => pytorch::read_legacy(bytes),
        bytes if flax::is_checkpoint(bytes) => flax::read(bytes),
        _ => safetensors::read(bytes),
    }
}
