//! What can go wrong in training.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use super::identity::Changed;
use crate::SessionError;
use crate::backend::GroupError;
use crate::text::TextError;

pub(super) type Result<T, E = TrainError> = std::result::Result<T, E>;

/// What can go wrong in training.
#[allow(missing_docs, reason = "the messages say what the fields are")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting that cannot be used.
    #[error("{key}: {problem}")]
    Setting { key: &'static str, problem: String },
    /// A directory in use.
    #[error("{} is in use by another process; two cannot train in one directory", directory.display())]
    Locked { directory: PathBuf },
    /// A checkpoint or a finished model of another identity.
    #[error(transparent)]
    Changed(#[from] Changed),
    /// A checkpoint that cannot be read.
    #[error(
        "the checkpoint {} is damaged: {problem}; move or delete it, and the run goes on from {earlier}",
        checkpoint.display()
    )]
    Damaged { checkpoint: PathBuf, problem: String, earlier: String },
    /// A checkpoint of a later version.
    #[error("{} is of version {version}, newer than the {supported} this program reads", path.display())]
    Version { path: PathBuf, version: u64, supported: u32 },
    /// A model that cannot be opened.
    #[error("the model cannot be opened: {0}")]
    Open(#[source] Box<dyn Error + Send + Sync>),
    /// A session that failed outside of an update.
    #[error("the model: {0}")]
    Session(#[source] Box<SessionError>),
    /// An update that failed.
    #[error("{}{source}; {intact}", step_unless_said(*step, source))]
    Update { step: u64, source: Box<SessionError>, intact: Intact },
    /// An evaluation that failed.
    #[error("evaluation at step {step}: {source}; {intact}")]
    Evaluate { step: u64, source: Box<TrainError>, intact: Intact },
    /// A loss that is infinite or not a number.
    #[error("the model's loss on the evaluation text is not a number")]
    NonFiniteEvaluation,
    /// Nothing to evaluate on.
    #[error("the evaluation text is empty")]
    NoEvaluationText,
    /// Weights that are not worth saving.
    #[error("parameter {parameter} is not finite; the training has diverged")]
    NonFiniteWeights { parameter: String },
    /// A checkpoint that could not be written.
    #[error("cannot save step {step}: {source}; {intact}")]
    Save { step: u64, source: Box<TrainError>, intact: Intact },
    /// Batches of the wrong size.
    #[error("the training text gives batches of {found} examples where micro_batch_size is {expected}")]
    BatchSize { found: usize, expected: usize },
    /// Too little text.
    #[error("update {step}: the training text has come to an end")]
    EndOfText { step: u64 },
    /// A line of `metrics.jsonl` that cannot be read.
    #[error("{}:{line}: not a line of metrics: {problem}", path.display())]
    Metrics { path: PathBuf, line: usize, problem: String },
    /// Text that cannot be read.
    #[error(transparent)]
    Text(Box<TextError>),
    /// A model that does not fit.
    #[error(transparent)]
    Model(Box<crate::Error>),
    /// Processes that train together do not answer each other.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A file that cannot be read or written.
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

/// The newest checkpoint that a failure has left, if there is one.
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
