//! T5's computation: what it reads, its forward pass, and how its predictions are compared.

mod activation_checkpoints;
mod batch;
mod deviation;
mod forward;
mod position_bucket;

pub use batch::{Batch, IGNORED_LABEL};
pub use deviation::{Comparison, Deviation};
pub use forward::Probe;
pub use position_bucket::position_bucket;

pub(crate) use activation_checkpoints::Checkpointed;
pub(crate) use forward::{KeyValue, Layout, T5, View};
