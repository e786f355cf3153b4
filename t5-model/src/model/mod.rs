//! T5's computation: what it reads, its forward pass, and how its predictions are compared.

#[cfg(feature = "compute")]
mod activation_checkpoints;
mod batch;
mod deviation;
#[cfg(feature = "compute")]
mod forward;
mod position_bucket;

pub use batch::{Batch, IGNORED_LABEL};
pub use deviation::{Comparison, Deviation};
#[cfg(feature = "compute")]
pub use forward::Probe;
pub use position_bucket::position_bucket;

#[cfg(feature = "compute")]
pub(crate) use activation_checkpoints::Checkpointed;
#[cfg(feature = "compute")]
pub(crate) use forward::{Dropouts, KeyValue, Layout, T5, View};
