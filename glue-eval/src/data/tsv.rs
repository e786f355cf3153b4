//! GLUE's files as published: columns are separated by tabs, and nothing is quoted.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::example::{Example, Label, RowsOf};
use crate::error::{GlueError, Place, RowProblem};
use crate::task::{Answer, TaskSpec};

/// The column with a test file's own numbers; only QQP calls it `id`.
const INDEX: [&str; 2] = ["index", "id"];

/// Goes through the rows of a file. All test files have a header row, even CoLA's.
pub(super) fn read_rows(
    file: &RowsOf<'_>,
    on_row: &mut dyn FnMut(Place, Result<Example, RowProblem>) -> Result<(), GlueError>,
) -> Result<(), GlueError> {
    let RowsOf { task, labelled, path, first } = *file;
    let spec = task.spec();
    let mut lines = Lines::open(path)?;
    let columns = match spec.headerless.filter(|_| labelled) {
        Some(names) => Columns::find(spec, names, labelled),
        None => match lines.next_line()? {
            None => return Err(GlueError::NoExamples { path: path.to_owned() }),
            Some((_, bytes)) => decode(bytes)
                .and_then(|header| Columns::find(spec, &header.split('\t').collect::<Vec<_>>(), labelled)),
        },
    };
    let columns = columns.map_err(|problem| GlueError::Row {
        path: path.to_owned(),
        place: Place::Line(1),
        problem,
    })?;
    let mut number = first;
    while let Some((line, bytes)) = lines.next_line()? {
        on_row(Place::Line(line), decode(bytes).and_then(|row| columns.example(row, number)))?;
        number += 1;
    }
    Ok(())
}

fn decode(line: &[u8]) -> Result<&str, RowProblem> {
    std::str::from_utf8(line).map_err(|error| {
        let (valid, _) = line.split_at(error.valid_up_to());
        let column = 1 + valid.iter().filter(|&&byte| byte == b'\t').count();
        RowProblem::NotUtf8 { column: column.to_string() }
    })
}

/// A file's lines without line ends (LF or CR LF), byte-order mark, and an empty last line.
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

/// The columns that the task needs.
struct Columns {
    spec: &'static TaskSpec,
    header: Vec<String>,
    /// Positions of the texts, in the prompt's order.
    texts: Vec<usize>,
    label: Option<usize>,
    /// Only in test files: not all labelled files have such a column, and QQP's does not count the rows.
    index: Option<usize>,
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
        let index = header.iter().position(|name| !labelled && INDEX.contains(name));
        Ok(Columns {
            spec,
            header: header.iter().map(|&name| name.to_owned()).collect(),
            texts,
            label,
            index,
        })
    }

    fn example(&self, row: &str, number: u64) -> Result<Example, RowProblem> {
        let values: Vec<&str> = row.split('\t').collect();
        let (found, expected) = (values.len(), self.header.len());
        if let Some(missing) = self.header.get(found) {
            return Err(RowProblem::Short { found, expected, missing: shortened(missing) });
        }
        if found > expected {
            // There is a stray tab somewhere, so no column can be trusted.
            return Err(RowProblem::Long { found, expected });
        }
        let value = |position: &usize| values.get(*position).copied().unwrap_or_default();
        let label =
            self.label.as_ref().map(|position| label(&self.spec.answer, value(position))).transpose()?;
        let index =
            self.index.map_or(Ok(number), |position| index(&self.header[position], value(&position)))?;
        Ok(Example {
            index,
            texts: self.texts.iter().map(|position| value(position).to_owned()).collect(),
            label,
        })
    }
}

fn index(column: &str, value: &str) -> Result<u64, RowProblem> {
    let unusable = |_| RowProblem::Index { column: column.to_owned(), value: shortened(value) };
    value.parse().map_err(unusable)
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

/// In the wrong file there may be a whole paragraph where a label is expected.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
