//! Deep Fusion on the host: what a parameter's axes are, how parents combine along them, and how the result is
//! written. Mazzawi, Gonzalvo, Wunder, *Deep Fusion: Efficient Network Training via Pre-trained Initializations*,
//! arXiv 2306.11903.
//!
//! The road of a fusion: each parent's [`ParamTable`] declares the axes of its parameters; [`direct_sum`] turns the
//! tables into a [`FusionPlan`], which is plain data, can be read, stored and validated; an [`Executor`] checks the
//! plan against the parents' headers and then streams piece after piece from memory-mapped parents to the child.
//! [`dense`] walks through it with the paper's own example, a dense network.

#[cfg(target_endian = "big")]
compile_error!("safetensors files are little-endian; tensors are copied from and to them byte by byte");

mod atomic;
mod axis;
mod carry;
mod checkpoint;
mod convert;
pub mod dense;
mod device;
mod direct_sum;
mod error;
mod execute;
mod geometry;
mod lineage;
mod plan;
mod produce;
mod random;
mod spec;
mod tensor;
mod text;
mod validate;
mod warning;
mod widen;

pub use atomic::{free_space, write_directory_atomically, write_file_atomically};
pub use axis::{Axis, AxisRule};
pub use carry::{Carry, CrossSquares, Squares};
pub use checkpoint::{
    Checkpoint, DEFAULT_SHARD_SIZE, LazyTensor, Producer, Progress, ShardIndex, TensorFile,
    write_tensor_file, write_tensor_file_with_progress, write_tensors, write_weights,
};
pub use convert::convert_tensor;
pub use device::{PlacedBox, PlanDevice};
pub use direct_sum::{DirectSum, Part, direct_sum};
pub use error::{Error, Result};
pub use execute::{Executor, FusedTensor};
pub use lineage::{Fusion, Lineage, Parent, Training};
pub use plan::{
    Absence, Direction, Fill, FusionPlan, Noise, Normalisation, Placement, PlanParent, PlannedParam,
    SourceBox, StandardDeviation,
};
pub use random::{Philox, permutation, philox4x32};
pub use safetensors::Dtype;
pub use safetensors::tensor::TensorView;
pub use spec::{Averaging, Dim, Factor, Origin, ParamSpec, ParamTable, dim, joined};
pub use tensor::{HostTensor, HostTensors, TensorSource};
pub use warning::Warning;
pub use widen::{Shares, Widen, Widening, copies_up_to, whole_copies, widen};
