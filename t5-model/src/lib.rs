//! T5, written once: its configuration and parameter table, its forward pass over the [`Ops`] of a tensor framework,
//! text to batches, optimisers, and the [`Session`] that trains it. Frameworks register themselves as a [`Backend`];
//! this crate names none of them.

pub mod backend;
mod calibrate;
mod config;
pub mod conformance;
mod error;
mod generate;
pub mod method;
mod model;
pub mod optimizer;
pub mod parameters;
pub mod text;
pub mod train;

pub use backend::{
    Backend, Computation, DeviceInfo, Dropout, Evaluation, Forward, Ops, Precision, Session, SessionError,
    TrainStep, TrainingMemory, TrainingSize, Update, backend, backends,
};
pub use calibrate::Calibration;
pub use config::{FeedForward, T5Config};
pub use error::{Error, Result};
pub use model::{Batch, Comparison, Deviation, IGNORED_LABEL, Probe, position_bucket};
pub use optimizer::{Decay, Optimizer, Schedule};
pub use parameters::{
    StoredParameter, initialize, parameter_table, t5x_parameters, training_flops_per_token,
};
pub use train::TensorBoard;
