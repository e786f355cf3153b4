//! Deep Fusion on the host: the axes of a parameter, how parents combine along them, and how the result is written.
//! Mazzawi, Gonzalvo, Wunder, *Deep Fusion: Efficient Network Training via Pre-trained Initializations*,
//! arXiv 2306.11903.
//!
//! A fusion takes three steps, a module each:
//!
//! 1. [`table`]: each parent's [`ParamTable`](table::ParamTable) declares the axes of its parameters.
//! 2. [`grow`]: a method, such as [`direct_sum`](grow::direct_sum), turns the tables into a
//!    [`FusionPlan`](plan::FusionPlan), which is plain data that can be read, stored and [validated](plan).
//! 3. [`execute`]: an [`Executor`](execute::Executor) checks the plan against the parents' headers and then streams piece
//!    after piece from the memory-mapped parents to the child's [`checkpoint`].
//!
//! ```
//! use fusion_core::execute::Executor;
//! use fusion_core::grow::{DirectSum, Part, direct_sum};
//! use fusion_core::table::{Axis, ParamSpec, ParamTable, dim};
//! use fusion_core::{HostTensor, HostTensors, TensorSource};
//!
//! // A bias of two hidden features, and one of three. A checkpoint is a source of tensors, too.
//! let model = |values: &[f32]| -> HostTensors {
//!     [("bias".to_owned(), HostTensor { shape: vec![values.len()], data: values.to_vec() })].into()
//! };
//! let (small, large) = (model(&[1.0, 2.0]), model(&[3.0, 4.0, 5.0]));
//! let table = |features| ParamTable::new([ParamSpec::new("bias", [dim(Axis::Hidden, features)])]);
//! let (small_table, large_table) = (table(2)?, table(3)?);
//!
//! let part = |label, table| Part { label, blake3: None, table, embed_groups: &[] };
//! let plan = direct_sum(&[part("small", &small_table), part("large", &large_table)], &DirectSum::default())?;
//! let sources: [&dyn TensorSource; 2] = [&small, &large];
//! let child = Executor::new(&plan, &sources)?.in_memory()?;
//! assert_eq!(child["bias"].data, [1.0, 2.0, 3.0, 4.0, 5.0]);
//! # Ok::<(), fusion_core::Error>(())
//! ```
//!
//! `examples/fuse.rs` does the same from files to files. [`dense`] walks through the paper's own example, a dense network.

#![warn(missing_docs)]

#[cfg(target_endian = "big")]
compile_error!("safetensors files are little-endian; tensors are copied from and to them byte by byte");

pub mod atomic;
pub mod carry;
pub mod checkpoint;
pub mod dense;
mod error;
pub mod execute;
pub mod grow;
pub mod json;
pub mod lineage;
mod mistaken;
pub mod plan;
pub mod random;
pub mod table;
mod tensor;

pub use error::{Error, Result};
pub use mistaken::Mistaken;
pub use tensor::{
    Dtype, HostTensor, HostTensors, TensorSource, TensorView, convert_tensor, count_not_finite, wider,
};
