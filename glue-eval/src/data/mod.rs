//! GLUE's files in either of their two layouts: the official TSV files, one folder per task (`CoLA/train.tsv`), and the
//! Parquet files of `nyu-mll/glue` on the Hugging Face Hub, one folder per configuration
//! (`cola/train-00000-of-00001.parquet`).

mod example;
#[cfg(feature = "parquet")]
mod parquet;
mod split;
mod tsv;

use std::path::{Path, PathBuf};

use fusion_core::Mistaken;

use self::example::RowsOf;
use crate::error::{GlueError, Place, RowProblem};
use crate::task::{EvaluationSet, Task};

pub use example::{Example, Label};
pub use split::Split;

/// What to do with a row that is not an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRows {
    /// Stop with an error that names the file, the place and the reason.
    Refuse,
    /// Leave the row out and count it. A few rows of the published QQP are cut off.
    Skip,
}

/// The examples of a split, or of one of its files.
#[derive(Debug, Default)]
pub struct Examples {
    /// The examples, in the order of the rows.
    pub examples: Vec<Example>,
    /// Rows left out under [`BadRows::Skip`].
    pub skipped: usize,
}

/// Reads a training or development file; every example has a label.
///
/// # Errors
/// A file that cannot be read or has no examples; a bad row, unless these are skipped.
pub fn read_labelled(task: Task, path: &Path, bad_rows: BadRows) -> Result<Examples, GlueError> {
    read(task, true, &[path.to_owned()], bad_rows)
}

/// Reads a test file; no example has a label.
///
/// # Errors
/// As [`read_labelled`].
pub fn read_test(task: Task, path: &Path, bad_rows: BadRows) -> Result<Examples, GlueError> {
    read(task, false, &[path.to_owned()], bad_rows)
}

/// Reads a split from a folder of GLUE's files, in either layout.
///
/// # Errors
/// As [`read_labelled`], and files that are missing.
pub fn read_split(task: Task, split: Split, glue: &Path, bad_rows: BadRows) -> Result<Examples, GlueError> {
    read(task, split.is_labelled(), &split.find(task, glue)?, bad_rows)
}

/// Looks at the beginning of a file: whether it is in the format of a split's TSV or Parquet files, and among its first
/// rows is an example.
///
/// # Errors
/// [`GlueError::Mistaken`], or why it is no such file.
pub fn check_beginning(task: Task, split: Split, path: &Path, is_parquet: bool) -> Result<(), GlueError> {
    const ROWS: usize = 100;
    if let Some(what) = Mistaken::of_file(path) {
        return Err(GlueError::Mistaken { path: path.to_owned(), what });
    }
    if is_parquet && !cfg!(feature = "parquet") {
        return Ok(());
    }
    let file = RowsOf { task, labelled: split.is_labelled(), path, first: 0 };
    let (mut bad, mut found) = (None, false);
    let mut rows = 0;
    let mut on_row = |place, example: Result<Example, RowProblem>| {
        rows += 1;
        match example {
            Ok(_) => found = true,
            Err(problem) => {
                bad = bad.take().or(Some(GlueError::Row { path: path.to_owned(), place, problem }))
            }
        }
        // Any error ends the reading.
        if found || rows == ROWS { Err(GlueError::NoExamples { path: path.to_owned() }) } else { Ok(()) }
    };
    let read =
        if is_parquet { parquet::read_rows(&file, &mut on_row) } else { tsv::read_rows(&file, &mut on_row) };
    match bad {
        _ if found => Ok(()),
        Some(problem) => Err(problem),
        None => Err(read.err().unwrap_or(GlueError::NoExamples { path: path.to_owned() })),
    }
}

/// Everything needed to fine-tune on a task.
#[derive(Debug)]
pub struct TaskData {
    /// The task.
    pub task: Task,
    /// The training set.
    pub train: Vec<Example>,
    /// One per [evaluation set](crate::task::TaskSpec::evaluation_sets) of the task, in its order.
    pub dev: Vec<Vec<Example>>,
    /// Likewise the test sets, if they were read.
    pub test: Vec<Vec<Example>>,
    /// Rows left out of all these files.
    pub skipped: usize,
}

/// Reads a task's training and development files from a folder that holds them in either layout.
///
/// # Errors
/// As [`read_split`].
pub fn read_task(task: Task, glue: &Path, bad_rows: BadRows) -> Result<TaskData, GlueError> {
    let Examples { examples: train, skipped } = read_split(task, Split::Train, glue, bad_rows)?;
    let mut data = TaskData { task, train, dev: Vec::new(), test: Vec::new(), skipped };
    data.dev = data.read_sets(Split::Dev, glue, bad_rows)?;
    Ok(data)
}

impl TaskData {
    /// Reads the test files as well.
    ///
    /// # Errors
    /// As [`read_split`].
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

/// Receives every row: its file, its place there, and the example or why it is none.
pub(crate) type OnRow<'a> =
    dyn FnMut(&Path, Place, Result<Example, RowProblem>) -> Result<(), GlueError> + 'a;

/// Goes through the rows of a split's files.
pub(crate) fn read_rows(
    task: Task,
    labelled: bool,
    files: &[PathBuf],
    on_row: &mut OnRow<'_>,
) -> Result<(), GlueError> {
    let mut rows = 0;
    for path in files {
        if let Some(what) = Mistaken::of_file(path) {
            return Err(GlueError::Mistaken { path: path.clone(), what });
        }
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
