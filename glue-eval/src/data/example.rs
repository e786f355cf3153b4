//! One row of a task's files.

use std::path::Path;

use crate::task::Task;

/// One row of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The file's own number for the example (`idx` in Parquet, `index` in TSV test files), else its row's, from 0.
    pub index: u64,
    /// The texts, in the order of the task's prompt fields.
    pub texts: Vec<String>,
    /// Absent in test files.
    pub label: Option<Label>,
}

/// The right answer to an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Label {
    /// The index of the label word.
    Class(usize),
    /// From 0 to 5.
    Score(f32),
}

/// A file to read rows from.
pub(super) struct RowsOf<'a> {
    pub task: Task,
    pub labelled: bool,
    pub path: &'a Path,
    /// The number of its first row: how many rows the split's earlier files hold.
    pub first: u64,
}
