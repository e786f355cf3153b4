//! T5, written once: its configuration and parameters, the methods that fuse and grow it, its forward pass
//! over the operations of a tensor framework, and its training.
//!
//! | module | holds | feature |
//! |---|---|---|
//! | [`T5Config`], [`parameters`] | what a T5 consists of | |
//! | [`keys`] | what is made of the keys that transformers reads | |
//! | [`method`] | how larger T5s are made of smaller ones | |
//! | [`optimizer`] | optimisers, their state, and how a child takes it over | |
//! | [`mod@backend`], [`conformance`] | T5 on a tensor framework, and what all frameworks must agree on | `compute` |
//! | [`text`] | text to batches | `text` |
//! | [`train`] | the training loop | `train` |
//!
//! All features are on by default; a program that only fuses turns them off, and compiles neither a tokenizer
//! nor a matrix library. Frameworks register themselves as a [`Backend`]; this crate names none of them.

#![warn(missing_docs)]

#[cfg(feature = "compute")]
pub mod backend;
#[cfg(feature = "compute")]
mod calibrate;
mod config;
#[cfg(feature = "compute")]
pub mod conformance;
mod error;
#[cfg(feature = "compute")]
mod generate;
pub mod keys;
pub mod method;
mod model;
pub mod optimizer;
pub mod parameters;
#[cfg(feature = "text")]
pub mod text;
#[cfg(feature = "train")]
pub mod train;

#[cfg(feature = "compute")]
pub use backend::{
    Backend, Computation, ComputeChoice, DeviceInfo, Dropout, Forward, Ops, Precision, Session, SessionError,
    TrainStep, TrainingMemory, TrainingSize, Update, backend, backends,
};
#[cfg(feature = "compute")]
pub use calibrate::Calibration;
pub use config::{FeedForward, T5Config, TokenIds, type_name};
pub use error::{Error, Result};
#[cfg(feature = "compute")]
pub use generate::{Answer, Decoding, GENERATION_CONFIG, GenerationSettings, Rules, Sampling};
#[cfg(feature = "compute")]
pub use model::Probe;
pub use model::{Batch, Comparison, Deviation, IGNORED_LABEL, position_bucket};
pub use optimizer::{Decay, Optimizer, Schedule};
pub use parameters::{
    Initialization, StoredParameter, initialize, parameter_table, t5x_parameters, training_flops_per_token,
};
#[cfg(feature = "train")]
pub use train::TensorBoard;
