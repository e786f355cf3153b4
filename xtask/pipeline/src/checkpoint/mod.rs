//! Checkpoints and the files that go with them: conversion, export and comparison.

mod asymmetry;
mod beside;
pub mod convert;
pub mod export;
mod generation;
pub mod health;
mod lineage;
mod tokenizer;
mod types;
pub mod verify;
mod write;

use anyhow::Result;
use fusion_core::checkpoint::Checkpoint;
use fusion_core::{Dtype, TensorSource};

pub use asymmetry::{Asymmetry, of_matrix as asymmetry_of};
pub use beside::{Beside, Made};
pub use generation::generation_warnings;
pub use lineage::{known_lineage, lineage_to_continue};
pub use tokenizer::{BYTES, has_tokenizer, load_tokenizer, tokenizer_for, tokenizer_of};
pub use types::{check_finite, check_said_type, not_finite, types_of, types_text};
pub use write::{check_replaceable, check_replaceable_tokenizer, write_directory};

/// The number of parameters that the weights hold. Tensors of integers, such as positions, are none.
pub fn parameter_count(checkpoint: &Checkpoint) -> Result<u64> {
    let mut count = 0u64;
    for name in checkpoint.names() {
        let view = checkpoint.view(&name)?;
        if is_float(view.dtype()) {
            count += view.shape().iter().map(|size| *size as u64).product::<u64>();
        }
    }
    Ok(count)
}

/// Whether weights may have a type.
fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
}
