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
//!    after piece from the memory-mapped parents to the child's [checkpoint](checkpoint).
//!
//! [`dense`] walks through it with the paper's own example, a dense network.

#[cfg(target_endian = "big")]
compile_error!("safetensors files are little-endian; tensors are copied from and to them byte by byte");

pub mod atomic;
pub mod carry;
pub mod checkpoint;
pub mod dense;
mod error;
pub mod execute;
pub mod grow;
pub mod lineage;
pub mod plan;
pub mod random;
pub mod table;
mod tensor;

pub use error::{Error, Result};
pub use tensor::{Dtype, HostTensor, HostTensors, TensorSource, TensorView, convert_tensor};
