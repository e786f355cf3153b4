//! Errors, and the bad rows of GLUE's files.

use fusion_core::Mistaken;
use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

use serde::Serialize;
use t5_model::backend::GroupError;
use t5_model::train::TrainError;

use crate::task::Task;

/// What can go wrong between GLUE's files and a table of results.
#[expect(missing_docs, reason = "the messages say what the fields are")]
#[derive(Debug, thiserror::Error)]
pub enum GlueError {
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },

    /// A row that is no example.
    #[error("{}{place}: {problem}", path.display())]
    Row { path: PathBuf, place: Place, problem: RowProblem },

    /// The feature `parquet` of this crate is off.
    #[error("{}: this program was built without parquet", path.display())]
    NoParquet { path: PathBuf },

    /// A file that is damaged, or not a Parquet file.
    #[cfg(feature = "parquet")]
    #[error("{}: not an intact Parquet file: {source}", path.display())]
    Parquet { path: PathBuf, source: parquet::errors::ParquetError },

    /// A Parquet file without a column that the task needs.
    #[error("{}: there is no column {column:?}; the columns are {found:?}", path.display())]
    MissingColumn { path: PathBuf, column: &'static str, found: Vec<String> },

    /// A column of the wrong type.
    #[cfg(feature = "parquet")]
    #[error("{}: column {column:?} holds {found}, {expected} are expected", path.display())]
    ColumnType { path: PathBuf, column: &'static str, found: String, expected: &'static str },

    /// A split without a file.
    #[error("{task}: there is no {split} data: neither {} nor {} exists", tsv.display(), parquet.display())]
    MissingFiles { task: Task, split: String, tsv: PathBuf, parquet: PathBuf },

    /// A split whose shards do not make a whole.
    #[error("{}: some shards of {split} are missing, or not of the same whole; there are {found:?}", folder.display())]
    Shards { folder: PathBuf, split: String, found: Vec<String> },

    /// A table of results that cannot be read.
    #[error("{}:{line}: {problem}", path.display())]
    Table { path: PathBuf, line: u64, problem: String },

    /// Something else is where a file of data is expected.
    #[error("{} is {what}", path.display())]
    Mistaken { path: PathBuf, what: Mistaken },

    /// A split that has only bad rows, or none.
    #[error("{}: no examples", path.display())]
    NoExamples { path: PathBuf },

    /// A task without training examples, though it is to be trained on.
    #[error("{task}: no training examples")]
    NoTraining { task: Task },

    /// A setting that cannot be used.
    #[error("setting {name}: {problem}")]
    Setting { name: &'static str, problem: String },

    /// A fine-tuning that failed; `name` is its task, or `mixture`.
    #[error("{name}: {error}")]
    Training { name: &'static str, error: Box<TrainError> },

    /// A tokenizer that failed.
    #[error("cannot tokenise examples")]
    Tokenizer { source: Box<dyn Error + Send + Sync> },

    /// A result that cannot be read.
    #[error("{} is damaged: {problem}; move or delete it, and the fine-tuning starts over", path.display())]
    Damaged { path: PathBuf, problem: String },

    /// A model that does not answer.
    #[error("{task}: {action}")]
    Model { task: Task, action: String, source: Box<dyn Error + Send + Sync> },
}

/// A place in a file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A line of a TSV file.
    Line(u64),
    /// A row of a Parquet file.
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

impl From<GroupError> for GlueError {
    fn from(error: GroupError) -> Self {
        TrainError::from(error).into()
    }
}

impl From<TrainError> for GlueError {
    fn from(error: TrainError) -> Self {
        GlueError::Training { name: "fine-tuning", error: Box::new(error) }
    }
}

/// Why a row is not an example.
#[expect(missing_docs, reason = "the messages say what the fields are")]
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum RowProblem {
    /// Bytes that are not text; the column goes by its name, or by its number if the name is not known.
    #[error("column {column} is not valid UTF-8")]
    NotUtf8 { column: String },

    /// A TSV file without a column that the task needs.
    #[error("the header has no column {column:?}; its columns are {found:?}")]
    MissingColumn { column: &'static str, found: Vec<String> },

    /// Too few columns.
    #[error("the row ends after {found} of {expected} columns, before {missing:?}")]
    Short { found: usize, expected: usize, missing: String },

    /// Too many columns.
    #[error("the row has {found} columns, {expected} are expected")]
    Long { found: usize, expected: usize },

    /// A label that the task does not have.
    #[error("column {column:?} has the unknown label {value:?}; known are {known:?}")]
    UnknownLabel { column: &'static str, value: String, known: &'static [&'static str] },

    /// A score that is not a number from 0 to 5.
    #[error("column {column:?} has {value:?} where a score from 0 to 5 is expected")]
    Score { column: &'static str, value: String },

    /// The index of a class that the task does not have.
    #[error("column {column:?} has class {class}; the classes are 0 to {last}")]
    UnknownClass { column: &'static str, class: i64, last: usize },

    /// An example's number that is not one.
    #[error("column {column:?} has {value:?} where an example's number is expected")]
    Index { column: String, value: String },

    /// A value that is missing.
    #[error("column {column:?} is null")]
    Null { column: &'static str },
}
