use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

use serde::Serialize;

use crate::task::Task;

/// What can go wrong between GLUE's files and a table of results.
#[derive(Debug, thiserror::Error)]
pub enum GlueError {
    #[error("unknown GLUE task {name:?}; the tasks are {}", task_names())]
    UnknownTask { name: String },

    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("{}{place}: {problem}", path.display())]
    Row { path: PathBuf, place: Place, problem: RowProblem },

    /// The feature `parquet` of this crate is off.
    #[error("{}: this program was built without parquet", path.display())]
    NoParquet { path: PathBuf },

    #[cfg(feature = "parquet")]
    #[error("{}: no sound Parquet file: {source}", path.display())]
    Parquet { path: PathBuf, source: parquet::errors::ParquetError },

    #[error("{}: there is no column {column:?}; the columns are {found:?}", path.display())]
    MissingColumn { path: PathBuf, column: &'static str, found: Vec<String> },

    #[cfg(feature = "parquet")]
    #[error("{}: column {column:?} holds {found}, {expected} are expected", path.display())]
    ColumnType { path: PathBuf, column: &'static str, found: String, expected: &'static str },

    #[error("{task}: there is no {split} data: neither {} nor {} exists", tsv.display(), parquet.display())]
    MissingFiles { task: Task, split: String, tsv: PathBuf, parquet: PathBuf },

    #[error("{}: some shards of {split} are missing, or not of the same whole; there are {found:?}", folder.display())]
    Shards { folder: PathBuf, split: String, found: Vec<String> },

    #[error("{}:{line}: {problem}", path.display())]
    Table { path: PathBuf, line: u64, problem: String },

    #[error("{}: no examples", path.display())]
    NoExamples { path: PathBuf },

    #[error("{task}: no training examples")]
    NoTraining { task: Task },

    #[error("setting {name}: {problem}")]
    Setting { name: &'static str, problem: String },

    #[error("{name}: cannot open the model to fine-tune")]
    Open { name: &'static str, source: Box<dyn Error + Send + Sync> },

    #[error("{name}: cannot train step {step}")]
    Train { name: &'static str, step: u64, source: Box<dyn Error + Send + Sync> },

    #[error("cannot tokenise examples")]
    Tokenizer { source: Box<dyn Error + Send + Sync> },

    #[error("cannot keep what a fine-tuning makes: {0}")]
    Keep(Box<dyn Error + Send + Sync>),

    #[error("{} is damaged: {problem}; move or delete it, and the fine-tuning begins again", path.display())]
    Damaged { path: PathBuf, problem: String },

    #[error(
        "{} was made with another `{key}` ({was}, now {now}); restore the setting or choose another directory",
        path.display()
    )]
    Changed { path: PathBuf, key: String, was: String, now: String },

    #[error("{task}: {action}")]
    Model { task: Task, action: String, source: Box<dyn Error + Send + Sync> },
}

/// Where in a file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Line(u64),
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, ":{line}"),
            Place::Row(row) => write!(f, ": row {row}"),
        }
    }
}

impl GlueError {
    pub(crate) fn keep(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        GlueError::Keep(source.into())
    }
}

/// Why a row is no example.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum RowProblem {
    /// The column by its name, or its number where that is not known.
    #[error("column {column} is not valid UTF-8")]
    NotUtf8 { column: String },

    #[error("the header has no column {column:?}; its columns are {found:?}")]
    MissingColumn { column: &'static str, found: Vec<String> },

    #[error("the row ends after {found} of {expected} columns, before {missing:?}")]
    Short { found: usize, expected: usize, missing: String },

    #[error("the row has {found} columns, {expected} are expected")]
    Long { found: usize, expected: usize },

    #[error("column {column:?} has the unknown label {value:?}; known are {known:?}")]
    UnknownLabel { column: &'static str, value: String, known: &'static [&'static str] },

    #[error("column {column:?} has {value:?} where a score from 0 to 5 is expected")]
    Score { column: &'static str, value: String },

    #[error("column {column:?} has class {class}; the classes are 0 to {last}")]
    UnknownClass { column: &'static str, class: i64, last: usize },

    #[error("column {column:?} has {value:?} where an example's number is expected")]
    Index { column: String, value: String },

    #[error("column {column:?} is null")]
    Null { column: &'static str },
}

fn task_names() -> String {
    Task::ALL.map(|task| task.spec().name).join(", ")
}
