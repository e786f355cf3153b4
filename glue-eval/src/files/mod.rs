//! GLUE's files in either of their two layouts: the official TSV files, one folder a task (`CoLA/train.tsv`), and the
//! Parquet files of the Hugging Face hub's `nyu-mll/glue`, one folder a configuration
//! (`cola/train-00000-of-00001.parquet`).

#[cfg(feature = "parquet")]
mod parquet;
mod split;
mod tsv;

use std::path::{Path, PathBuf};

use crate::error::{GlueError, Place, RowProblem};
use crate::task::{EvaluationSet, Task};

pub use split::Split;

/// One row of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// What the file calls the example (`idx` in Parquet, `index` in TSV test files), else its row's number from 0.
    pub index: u64,
    /// The texts, in the order of the task's prompt fields.
    pub texts: Vec<String>,
    /// Absent in the test files.
    pub label: Option<Label>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Label {
    /// The index of the label word.
    Class(usize),
    /// From 0 to 5.
    Score(f32),
}

/// What to do with a row that is no example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRows {
    /// Stop with an error that names file, place and reason.
    Refuse,
    /// Leave the row out and count it. The published QQP has a few rows that break off.
    Skip,
}

/// The examples of one split, or of one file of it.
#[derive(Debug, Default)]
pub struct Examples {
    pub examples: Vec<Example>,
    /// Rows left out under [`BadRows::Skip`].
    pub skipped: usize,
}

/// Reads a training or development file; every example has a label.
pub fn read_labelled(task: Task, path: &Path, bad_rows: BadRows) -> Result<Examples, GlueError> {
    read(task, true, &[path.to_owned()], bad_rows)
}

/// Reads a test file; no example has a label.
pub fn read_test(task: Task, path: &Path, bad_rows: BadRows) -> Result<Examples, GlueError> {
    read(task, false, &[path.to_owned()], bad_rows)
}

/// Reads a split from a folder of GLUE's files in either layout.
pub fn read_split(task: Task, split: Split, glue: &Path, bad_rows: BadRows) -> Result<Examples, GlueError> {
    read(task, split.is_labelled(), &split.find(task, glue)?, bad_rows)
}

/// Everything needed to fine-tune on a task.
#[derive(Debug)]
pub struct TaskData {
    pub task: Task,
    pub train: Vec<Example>,
    /// One per [evaluation set](crate::task::TaskSpec::evaluation_sets) of the task, in its order.
    pub dev: Vec<Vec<Example>>,
    /// The same of the test sets, if they were read.
    pub test: Vec<Vec<Example>>,
    /// Rows left out of all these files.
    pub skipped: usize,
}

/// Reads a task's training and development files from a folder that holds them in either layout.
pub fn read_task(task: Task, glue: &Path, bad_rows: BadRows) -> Result<TaskData, GlueError> {
    let Examples { examples: train, skipped } = read_split(task, Split::Train, glue, bad_rows)?;
    let mut data = TaskData { task, train, dev: Vec::new(), test: Vec::new(), skipped };
    data.dev = data.read_sets(Split::Dev, glue, bad_rows)?;
    Ok(data)
}

impl TaskData {
    /// Reads the test files as well.
    pub fn read_test(&mut self, glue: &Path, bad_rows: BadRows) -> Result<(), GlueError> {
        self.test = self.read_sets(Split::Test, glue, bad_rows)?;
        Ok(())
    }

    fn read_sets(
        &mut self,
        split: fn(&'static EvaluationSet) -> Split,
        glue: &Path,
        bad_rows: BadRows,
    ) -> Result<Vec<Vec<Example>>, GlueError> {
        let mut sets = Vec::new();
        for set in self.task.spec().evaluation_sets {
            let Examples { examples, skipped } = read_split(self.task, split(set), glue, bad_rows)?;
            sets.push(examples);
            self.skipped += skipped;
        }
        Ok(sets)
    }
}

fn read(task: Task, labelled: bool, files: &[PathBuf], bad_rows: BadRows) -> Result<Examples, GlueError> {
    let mut read = Examples::default();
    read_rows(task, labelled, files, &mut |path, place, example| {
        match example {
            Ok(example) => read.examples.push(example),
            Err(_) if bad_rows == BadRows::Skip => read.skipped += 1,
            Err(problem) => return Err(GlueError::Row { path: path.to_owned(), place, problem }),
        }
        Ok(())
    })?;
    match files.first() {
        Some(path) if read.examples.is_empty() => Err(GlueError::NoExamples { path: path.to_owned() }),
        _ => Ok(read),
    }
}

/// What is told of every row: its file, its place there, and the example or why it is none.
pub(crate) type OnRow<'a> =
    dyn FnMut(&Path, Place, Result<Example, RowProblem>) -> Result<(), GlueError> + 'a;

/// A file whose rows are wanted.
struct RowsOf<'a> {
    task: Task,
    labelled: bool,
    path: &'a Path,
    /// The number of its first row, if earlier files hold some of the split's.
    first: u64,
}

/// Goes through the rows of a split's files.
pub(crate) fn read_rows(
    task: Task,
    labelled: bool,
    files: &[PathBuf],
    on_row: &mut OnRow<'_>,
) -> Result<(), GlueError> {
    let mut rows = 0;
    for path in files {
        let file = RowsOf { task, labelled, path, first: rows };
        let mut on_row = |place, example| {
            rows += 1;
            on_row(path, place, example)
        };
        if path.extension().is_some_and(|extension| extension == "parquet") {
            parquet::read_rows(&file, &mut on_row)?;
        } else {
            tsv::read_rows(&file, &mut on_row)?;
        }
    }
    Ok(())
}

#[cfg(not(feature = "parquet"))]
mod parquet {
    use super::{Example, GlueError, Place, RowProblem, RowsOf};

    pub fn read_rows(
        file: &RowsOf<'_>,
        _: &mut dyn FnMut(Place, Result<Example, RowProblem>) -> Result<(), GlueError>,
    ) -> Result<(), GlueError> {
        Err(GlueError::NoParquet { path: file.path.to_owned() })
    }
}

/// A file that is not the right one may have a whole paragraph where a label is expected.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
