//! GLUE's files as published: tabs separate the columns and nothing is quoted.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::error::{GlueError, RowProblem};
use crate::task::{Answer, Task, TaskSpec};

/// One row of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
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
    /// Stop with an error that names file, line and reason.
    Refuse,
    /// Leave the row out and count it. The published QQP has a few rows that break off.
    Skip,
}

/// The examples of one file.
#[derive(Debug)]
pub struct Examples {
    pub examples: Vec<Example>,
    /// Rows left out under [`BadRows::Skip`].
    pub skipped: usize,
}

/// Reads a training or development file; every example has a label.
pub fn read_labelled(task: Task, path: &Path, bad_rows: BadRows) -> Result<Examples, GlueError> {
    read(task.spec(), path, task.spec().headerless, true, bad_rows)
}

/// Reads a test file; no example has a label. All test files have a header row, CoLA's too.
pub fn read_test(task: Task, path: &Path, bad_rows: BadRows) -> Result<Examples, GlueError> {
    read(task.spec(), path, None, false, bad_rows)
}

/// Everything needed to fine-tune on a task.
#[derive(Debug)]
pub struct TaskData {
    pub task: Task,
    pub train: Vec<Example>,
    /// One per [evaluation set](TaskSpec::evaluation_sets) of the task, in its order.
    pub dev: Vec<Vec<Example>>,
    /// Rows left out of all these files.
    pub skipped: usize,
}

/// Reads a task's training and development files from a folder that holds GLUE's folders (`CoLA`, `SST-2`, …).
pub fn read_task(task: Task, glue: &Path, bad_rows: BadRows) -> Result<TaskData, GlueError> {
    let folder = glue.join(task.spec().title);
    let train = read_labelled(task, &folder.join("train.tsv"), bad_rows)?;
    let mut data = TaskData { task, train: train.examples, dev: Vec::new(), skipped: train.skipped };
    for set in task.spec().evaluation_sets {
        let dev = read_labelled(task, &folder.join(set.dev), bad_rows)?;
        data.dev.push(dev.examples);
        data.skipped += dev.skipped;
    }
    Ok(data)
}

fn read(
    spec: &'static TaskSpec,
    path: &Path,
    headerless: Option<&[&str]>,
    labelled: bool,
    bad_rows: BadRows,
) -> Result<Examples, GlueError> {
    let mut lines = Lines::open(path)?;
    let at = |line, problem| GlueError::Row { path: path.to_owned(), line, problem };
    let columns = match headerless {
        Some(names) => Columns::find(spec, names, labelled),
        None => match lines.next_line()? {
            None => return Err(GlueError::NoExamples { path: path.to_owned() }),
            Some((_, bytes)) => decode(bytes)
                .and_then(|header| Columns::find(spec, &header.split('\t').collect::<Vec<_>>(), labelled)),
        },
    }
    .map_err(|problem| at(1, problem))?;

    let mut read = Examples { examples: Vec::new(), skipped: 0 };
    while let Some((line, bytes)) = lines.next_line()? {
        match decode(bytes).and_then(|row| columns.example(row)) {
            Ok(example) => read.examples.push(example),
            Err(_) if bad_rows == BadRows::Skip => read.skipped += 1,
            Err(problem) => return Err(at(line, problem)),
        }
    }
    if read.examples.is_empty() {
        return Err(GlueError::NoExamples { path: path.to_owned() });
    }
    Ok(read)
}

fn decode(line: &[u8]) -> Result<&str, RowProblem> {
    std::str::from_utf8(line).map_err(|error| {
        let (valid, _) = line.split_at(error.valid_up_to());
        RowProblem::NotUtf8 { column: 1 + valid.iter().filter(|&&byte| byte == b'\t').count() }
    })
}

/// A file's lines without their ends (LF or CR LF), a byte-order mark, and empty lines at the end of the file.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: u64,
    buffer: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, GlueError> {
        let file = File::open(path).map_err(|source| GlueError::Io { path: path.to_owned(), source })?;
        Ok(Lines { path: path.to_owned(), reader: BufReader::new(file), line: 0, buffer: Vec::new() })
    }

    /// The next line with its number, counted from 1.
    fn next_line(&mut self) -> Result<Option<(u64, &[u8])>, GlueError> {
        let io = |source| GlueError::Io { path: self.path.clone(), source };
        self.buffer.clear();
        if self.reader.read_until(b'\n', &mut self.buffer).map_err(io)? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let mut line = self.buffer.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.line == 1 {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        let blank = line.is_empty();
        if blank && self.reader.fill_buf().map_err(io)?.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.line, line)))
    }
}

/// Where a file keeps what the task needs.
struct Columns {
    spec: &'static TaskSpec,
    header: Vec<String>,
    /// Positions of the texts, in the prompt's order.
    texts: Vec<usize>,
    label: Option<usize>,
}

impl Columns {
    fn find(spec: &'static TaskSpec, header: &[&str], labelled: bool) -> Result<Self, RowProblem> {
        let position = |column: &'static str| {
            let found = || header.iter().map(|&name| shortened(name)).collect();
            let position = header.iter().position(|&name| name == column);
            position.ok_or_else(|| RowProblem::MissingColumn { column, found: found() })
        };
        let texts = spec.fields.iter().map(|field| position(field.column)).collect::<Result<_, _>>()?;
        let (Answer::Class { column, .. } | Answer::Score { column, .. }) = spec.answer;
        let label = labelled.then(|| position(column)).transpose()?;
        Ok(Columns { spec, header: header.iter().map(|&name| name.to_owned()).collect(), texts, label })
    }

    fn example(&self, row: &str) -> Result<Example, RowProblem> {
        let values: Vec<&str> = row.split('\t').collect();
        let (found, expected) = (values.len(), self.header.len());
        if let Some(missing) = self.header.get(found) {
            return Err(RowProblem::Short { found, expected, missing: shortened(missing) });
        }
        if found > expected {
            // There is a stray tab somewhere, so that no column can be trusted.
            return Err(RowProblem::Long { found, expected });
        }
        let value = |position: &usize| values.get(*position).copied().unwrap_or_default();
        let label =
            self.label.as_ref().map(|position| label(&self.spec.answer, value(position))).transpose()?;
        Ok(Example { texts: self.texts.iter().map(|position| value(position).to_owned()).collect(), label })
    }
}

fn label(answer: &'static Answer, value: &str) -> Result<Label, RowProblem> {
    match *answer {
        Answer::Class { column, values, .. } => {
            let class = values.iter().position(|&known| known == value);
            class.map(Label::Class).ok_or_else(|| RowProblem::UnknownLabel {
                column,
                value: shortened(value),
                known: values,
            })
        }
        Answer::Score { column, .. } => match value.parse::<f32>() {
            Ok(score) if (0.0..=5.0).contains(&score) => Ok(Label::Score(score.abs())), // -0 is 0
            _ => Err(RowProblem::Score { column, value: shortened(value) }),
        },
    }
}

/// A file that is not the right one may have a whole paragraph where a label is expected.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
