//! Errors of models: a configuration or checkpoint that does not describe a T5, a batch that does not fit
//! one.

use std::path::PathBuf;

#[cfg(feature = "compute")]
use crate::Precision;
use crate::method::{Refusal, SettingsError};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model cannot be read, fused or run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant means")]
pub enum Error {
    #[error("{}: {problem}", .path.display())]
    Config { path: PathBuf, problem: String },
    #[error(
        "{embedding} and {other} differ: an encoder or a decoder with an embedding of its own cannot be read"
    )]
    Untied { embedding: &'static str, other: &'static str },
    #[error("the model's configuration: {0}")]
    Configuration(String),
    #[error("no configuration can be told from the weights: {0}")]
    NoConfiguration(String),
    #[error("array `{array}` is none of the parameters of a T5 by T5X's names, or one that is there already")]
    T5xArray { array: String },
    #[error("the batch: {0}")]
    Batch(String),
    #[error("{key}: {problem}")]
    Setting { key: &'static str, problem: String },
    #[error("candidate {candidate} has token {token} at {at}, but the vocabulary has ids 0 to {last}")]
    Candidate { candidate: usize, at: usize, token: i32, last: usize },
    #[error("these models cannot be fused: {0}")]
    Fusion(String),
    #[error("these models cannot be fused: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  and: "))]
    Incompatible(Vec<Refusal>),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("the optimiser's state in {}: {problem}", .directory.display())]
    OptimizerState { directory: PathBuf, problem: String },
    #[error("no backend is called {name:?}; compiled in: {available}")]
    NoBackend { name: String, available: String },
    #[error("{backend} has no device {device:?}; available: {available}")]
    NoDevice { backend: String, device: String, available: String },
    #[cfg(feature = "compute")]
    #[error("{device} does not compute in {precision}; it does in {available}")]
    NoPrecision { device: String, precision: Precision, available: String },
    #[error("the references of the conformance suite: {0}")]
    References(String),
    #[error(transparent)]
    Core(#[from] fusion_core::Error),
}
