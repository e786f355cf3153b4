//! Errors of models: configurations and checkpoints that do not describe a T5, batches that do not fit one.

use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {problem}", .path.display())]
    Config { path: PathBuf, problem: String },
    #[error("the model's configuration: {0}")]
    Configuration(String),
    #[error("{}: the checkpoint lacks {parameter}, which its config.json calls for", .path.display())]
    MissingParameter { path: PathBuf, parameter: String },
    #[error("{}: {parameter} has shape {found:?}, but config.json calls for {expected:?}", .path.display())]
    ParameterShape { path: PathBuf, parameter: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{}: parameter {parameter} is not a number at element {index} ({value}); the checkpoint is damaged or its training diverged", .path.display())]
    NonFinite { path: PathBuf, parameter: String, index: usize, value: f32 },
    #[error("the batch: {0}")]
    Batch(String),
    #[error("these models cannot be fused: {0}")]
    Fusion(String),
    #[error("no backend is called {name:?}; compiled in: {available}")]
    NoBackend { name: String, available: String },
    #[error("{backend} has no device {device:?}; available: {available}")]
    NoDevice { backend: String, device: String, available: String },
    #[error(transparent)]
    Core(#[from] fusion_core::Error),
}
