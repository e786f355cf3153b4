//! What can go wrong in a pretraining.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use super::identity::Difference;
use crate::SessionError;
use crate::text::TextError;

pub(super) type Result<T, E = TrainError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    #[error("{key}: {problem}")]
    Setting { key: &'static str, problem: String },
    #[error("{} is in use by another process; two cannot train in one directory", directory.display())]
    Locked { directory: PathBuf },
    #[error(
        "{} was trained with another `{}` ({}), so it cannot be continued; restore the setting or choose another \
         directory",
        path.display(), difference.key, difference.described().join(", now ")
    )]
    Changed { path: PathBuf, difference: Difference },
    #[error(
        "the checkpoint {} is damaged: {problem}; move or delete it, and the run goes on from {earlier}",
        checkpoint.display()
    )]
    Damaged { checkpoint: PathBuf, problem: String, earlier: String },
    #[error("{} is of version {version}, newer than the {supported} this program reads", path.display())]
    Version { path: PathBuf, version: u64, supported: u32 },
    #[error("the model cannot be opened: {0}")]
    Open(#[source] Box<dyn Error + Send + Sync>),
    #[error("the model: {0}")]
    Session(#[source] Box<SessionError>),
    #[error("{}{source}; {intact}", step_unless_said(*step, source))]
    Update { step: u64, source: Box<SessionError>, intact: Intact },
    #[error("evaluation at step {step}: {source}; {intact}")]
    Evaluate { step: u64, source: Box<TrainError>, intact: Intact },
    #[error("the model's loss on the evaluation text is not a number")]
    NonFiniteEvaluation,
    #[error("the evaluation text is empty")]
    NoEvaluationText,
    #[error("parameter {parameter} is not finite; the training has diverged")]
    NonFiniteWeights { parameter: String },
    #[error("cannot save step {step}: {source}; {intact}")]
    Save { step: u64, source: Box<TrainError>, intact: Intact },
    #[error("the training text gives batches of {found} examples where micro_batch_size is {expected}")]
    BatchSize { found: usize, expected: usize },
    #[error("update {step}: the training text has come to an end")]
    EndOfText { step: u64 },
    #[error("{}:{line}: not a line of metrics: {problem}", path.display())]
    Metrics { path: PathBuf, line: usize, problem: String },
    #[error(transparent)]
    Text(Box<TextError>),
    #[error(transparent)]
    Model(Box<crate::Error>),
    #[error(transparent)]
    Files(#[from] fusion_core::Error),
}

impl From<crate::Error> for TrainError {
    fn from(error: crate::Error) -> Self {
        TrainError::Model(Box::new(error))
    }
}

impl From<SessionError> for TrainError {
    fn from(error: SessionError) -> Self {
        TrainError::Session(Box::new(error))
    }
}

impl From<TextError> for TrainError {
    fn from(error: TextError) -> Self {
        TrainError::Text(Box::new(error))
    }
}

fn step_unless_said(step: u64, source: &SessionError) -> String {
    match source {
        SessionError::NonFinite { .. } => String::new(),
        _ => format!("update {step}: "),
    }
}

/// What a failure has left.
#[derive(Clone, Debug)]
pub struct Intact(pub Option<PathBuf>);

impl fmt::Display for Intact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(checkpoint) => write!(formatter, "the newest checkpoint is {}", checkpoint.display()),
            None => formatter.write_str("there is no checkpoint yet"),
        }
    }
}
