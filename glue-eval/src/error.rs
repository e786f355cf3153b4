use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::task::Task;

/// What can go wrong between GLUE's files and a table of results.
#[derive(Debug, thiserror::Error)]
pub enum GlueError {
    #[error("unknown GLUE task {name:?}; the tasks are {}", task_names())]
    UnknownTask { name: String },

    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("{}:{line}: {problem}", path.display())]
    Row { path: PathBuf, line: u64, problem: RowProblem },

    #[error("{}: no examples", path.display())]
    NoExamples { path: PathBuf },

    #[error("{task}: no training examples")]
    NoTraining { task: Task },

    #[error("setting {name}: {problem}")]
    Setting { name: &'static str, problem: String },

    #[error("{task}: cannot open the model to fine-tune")]
    Open { task: Task, source: Box<dyn Error + Send + Sync> },

    #[error("{task}: {action}")]
    Model { task: Task, action: String, source: Box<dyn Error + Send + Sync> },
}

/// Why a line of a TSV file is no example.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum RowProblem {
    #[error("column {column} is not valid UTF-8")]
    NotUtf8 { column: usize },

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
}

fn task_names() -> String {
    Task::ALL.map(|task| task.spec().name).join(", ")
}
