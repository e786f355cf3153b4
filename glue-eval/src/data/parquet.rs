//! GLUE's files as the Hugging Face Hub keeps them: a label is the index of its class, and -1 in test sets.

use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use super::example::{Example, Label, RowsOf};
use crate::error::{GlueError, Place, RowProblem};
use crate::task::{Answer, TaskSpec};

const LABEL: &str = "label";
const INDEX: &str = "idx";

/// Goes through the rows of a file.
pub(super) fn read_rows(
    file: &RowsOf<'_>,
    on_row: &mut dyn FnMut(Place, Result<Example, RowProblem>) -> Result<(), GlueError>,
) -> Result<(), GlueError> {
    let path = file.path;
    let failed = |source| GlueError::Parquet { path: path.to_owned(), source };
    let opened = File::open(path).map_err(|source| GlueError::Io { path: path.to_owned(), source })?;
    let reader = contained(path, || SerializedFileReader::new(opened).map_err(failed))?;
    let columns = Columns::find(file, reader.metadata().file_metadata().schema_descr())?;
    let mut number = 0;
    for group in 0..reader.num_row_groups() {
        let group =
            contained(path, || columns.read(reader.get_row_group(group).map_err(failed)?.as_ref(), path))?;
        for row in 0..group.rows {
            let example = group.example(row, file.first + number);
            number += 1;
            on_row(Place::Row(number), example)?;
        }
    }
    Ok(())
}

/// The decoder trusts the lengths in a file's pages, and panics if damage has changed them.
fn contained<T>(path: &Path, read: impl FnOnce() -> Result<T, GlueError>) -> Result<T, GlueError> {
    panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let source = ParquetError::General("a page is damaged".to_owned());
        Err(GlueError::Parquet { path: path.to_owned(), source })
    })
}

/// The columns that the task needs.
struct Columns {
    spec: &'static TaskSpec,
    texts: Vec<usize>,
    label: Option<usize>,
    index: Option<usize>,
}

impl Columns {
    fn find(file: &RowsOf<'_>, schema: &SchemaDescriptor) -> Result<Self, GlueError> {
        let position = |name: &str| {
            // A column that repeats, or is part of a larger one, has another path or levels.
            schema
                .columns()
                .iter()
                .position(|column| column.path().parts() == [name] && column.max_rep_level() == 0)
        };
        let needed = |column: &'static str| {
            let found = || schema.columns().iter().map(|column| column.path().string()).collect();
            let missing = || GlueError::MissingColumn { path: file.path.to_owned(), column, found: found() };
            position(column).ok_or_else(missing)
        };
        let spec = file.task.spec();
        Ok(Columns {
            spec,
            texts: spec.fields.iter().map(|field| needed(field.prompt)).collect::<Result<_, _>>()?,
            label: file.labelled.then(|| needed(LABEL)).transpose()?,
            index: position(INDEX),
        })
    }

    fn read(&self, group: &dyn RowGroupReader, path: &Path) -> Result<Group, GlueError> {
        let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let column = |position, name| Column { group, position, name, rows, path };
        let texts = self.texts.iter().zip(self.spec.fields);
        let texts = texts.map(|(&position, field)| column(position, field.prompt).texts());
        let label = self.label.map(|position| column(position, LABEL));
        let labels = match (label, &self.spec.answer) {
            (None, _) => Labels::Absent,
            (Some(label), Answer::Class { words, .. }) => Labels::Classes(label.integers()?, words.len()),
            (Some(label), Answer::Score { .. }) => Labels::Scores(label.floats()?),
        };
        let indices = self.index.map(|position| column(position, INDEX).integers()).transpose()?;
        Ok(Group { spec: self.spec, rows, texts: texts.collect::<Result<_, _>>()?, labels, indices })
    }
}

/// A column in a row group.
struct Column<'a> {
    group: &'a dyn RowGroupReader,
    position: usize,
    name: &'static str,
    rows: usize,
    path: &'a Path,
}

impl Column<'_> {
    fn texts(&self) -> Result<Vec<Option<ByteArray>>, GlueError> {
        match self.reader()? {
            ColumnReader::ByteArrayColumnReader(reader) => self.values(reader),
            _ => Err(self.unsuitable("texts")),
        }
    }

    fn integers(&self) -> Result<Vec<Option<i64>>, GlueError> {
        match self.reader()? {
            ColumnReader::Int64ColumnReader(reader) => self.values(reader),
            ColumnReader::Int32ColumnReader(reader) => {
                Ok(self.values(reader)?.into_iter().map(|value| value.map(i64::from)).collect())
            }
            _ => Err(self.unsuitable("integers")),
        }
    }

    fn floats(&self) -> Result<Vec<Option<f32>>, GlueError> {
        match self.reader()? {
            ColumnReader::FloatColumnReader(reader) => self.values(reader),
            ColumnReader::DoubleColumnReader(reader) => {
                Ok(self.values(reader)?.into_iter().map(|value| value.map(|value| value as f32)).collect())
            }
            _ => Err(self.unsuitable("floating-point numbers")),
        }
    }

    fn reader(&self) -> Result<ColumnReader, GlueError> {
        self.group.get_column_reader(self.position).map_err(|source| self.failed(source))
    }

    /// All values, `None` where there is a null.
    fn values<T: DataType>(&self, mut reader: ColumnReaderImpl<T>) -> Result<Vec<Option<T::T>>, GlueError> {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let read = reader.read_records(self.rows, Some(&mut levels), None, &mut values);
        let (found, ..) = read.map_err(|source| self.failed(source))?;
        if found != self.rows {
            let problem = format!("column {:?} ends after {found} of {} rows", self.name, self.rows);
            return Err(self.failed(ParquetError::EOF(problem)));
        }
        let mut values = values.into_iter();
        // Without levels the column cannot be null.
        let value = |row| if levels.get(row).is_none_or(|&level| level > 0) { values.next() } else { None };
        Ok((0..self.rows).map(value).collect())
    }

    fn failed(&self, source: ParquetError) -> GlueError {
        GlueError::Parquet { path: self.path.to_owned(), source }
    }

    fn unsuitable(&self, expected: &'static str) -> GlueError {
        let found = self.group.metadata().column(self.position).column_type().to_string();
        GlueError::ColumnType { path: self.path.to_owned(), column: self.name, found, expected }
    }
}

/// The columns of a row group.
struct Group {
    spec: &'static TaskSpec,
    rows: usize,
    /// One for each field of the prompt.
    texts: Vec<Vec<Option<ByteArray>>>,
    labels: Labels,
    indices: Option<Vec<Option<i64>>>,
}

enum Labels {
    Absent,
    /// With the number of classes.
    Classes(Vec<Option<i64>>, usize),
    Scores(Vec<Option<f32>>),
}

impl Group {
    /// The example of a row; `number` is its index if the file has none of its own.
    fn example(&self, row: usize, number: u64) -> Result<Example, RowProblem> {
        let index = match &self.indices {
            None => number,
            Some(indices) => index(value(indices, row, INDEX)?)?,
        };
        let texts = self.texts.iter().zip(self.spec.fields);
        let texts = texts.map(|(texts, field)| text(value(texts, row, field.prompt)?, field.prompt));
        Ok(Example { index, texts: texts.collect::<Result<_, _>>()?, label: self.labels.at(row)? })
    }
}

impl Labels {
    fn at(&self, row: usize) -> Result<Option<Label>, RowProblem> {
        let label = match self {
            Labels::Absent => return Ok(None),
            Labels::Classes(classes, count) => Label::Class(class(*value(classes, row, LABEL)?, *count)?),
            Labels::Scores(scores) => Label::Score(score(*value(scores, row, LABEL)?)?),
        };
        Ok(Some(label))
    }
}

fn value<'a, T>(values: &'a [Option<T>], row: usize, column: &'static str) -> Result<&'a T, RowProblem> {
    values.get(row).and_then(Option::as_ref).ok_or(RowProblem::Null { column })
}

fn text(bytes: &ByteArray, column: &'static str) -> Result<String, RowProblem> {
    let text = bytes.as_utf8().map_err(|_| RowProblem::NotUtf8 { column: format!("{column:?}") })?;
    Ok(text.to_owned())
}

fn index(value: &i64) -> Result<u64, RowProblem> {
    let unusable = |_| RowProblem::Index { column: INDEX.to_owned(), value: value.to_string() };
    u64::try_from(*value).map_err(unusable)
}

fn class(value: i64, count: usize) -> Result<usize, RowProblem> {
    let class = usize::try_from(value).ok().filter(|class| *class < count);
    class.ok_or(RowProblem::UnknownClass { column: LABEL, class: value, last: count - 1 })
}

fn score(value: f32) -> Result<f32, RowProblem> {
    let score = (0.0..=5.0).contains(&value).then_some(value.abs()); // -0 is 0
    score.ok_or_else(|| RowProblem::Score { column: LABEL, value: value.to_string() })
}
