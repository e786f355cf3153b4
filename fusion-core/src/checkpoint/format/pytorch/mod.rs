//! PyTorch's state dicts, as `torch.save` writes them: a pickle that says what tensors there are, and storages that hold
//! their bytes, uncompressed. Since PyTorch 1.6 both are entries of a zip archive; before, they followed each other.

mod archive;
mod legacy;
mod machine;
mod pickle;
mod state_dict;

pub(super) use archive::read as read_archive;
pub(super) use legacy::{is_legacy, read as read_legacy};
