//! Documents in a column of a Parquet file.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::error::{Result, TextError};

/// Rows decoded at a time.
const ROWS: usize = 256;

/// A file of which one column holds documents.
pub(super) struct ParquetColumn {
    file: SerializedFileReader<File>,
    path: PathBuf,
    name: String,
    column: usize,
    /// The level of a value that is there.
    defined: i16,
    /// The next row group.
    group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    decoded: VecDeque<Option<ByteArray>>,
    /// Of the document returned last, from 1.
    row: u64,
}

impl ParquetColumn {
    /// Reads the file's schema.
    ///
    /// # Errors
    /// If the file cannot be read, or has no such column of texts.
    pub fn open(path: &Path, column: &str) -> Result<Self> {
        let file = File::open(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
        let file = contained(path, || SerializedFileReader::new(file))?;
        let columns = file.metadata().file_metadata().schema_descr().columns();
        // A column that repeats has several values to a row.
        let found = columns.iter().position(|it| it.path().string() == column && it.max_rep_level() == 0);
        let found = found.ok_or_else(|| TextError::NoColumn {
            path: path.to_owned(),
            column: column.to_owned(),
            found: columns.iter().map(|column| column.path().string()).collect(),
        })?;
        let physical = columns[found].physical_type();
        if physical != parquet::basic::Type::BYTE_ARRAY {
            let (path, column, found) = (path.to_owned(), column.to_owned(), physical.to_string());
            return Err(TextError::ColumnType { path, column, found });
        }
        let defined = columns[found].max_def_level();
        Ok(ParquetColumn {
            file,
            path: path.to_owned(),
            name: column.to_owned(),
            column: found,
            defined,
            group: 0,
            reader: None,
            decoded: VecDeque::new(),
            row: 0,
        })
    }

    /// The next row's document.
    pub fn next(&mut self) -> Result<Option<String>> {
        while self.decoded.is_empty() {
            if !self.decode()? {
                return Ok(None);
            }
        }
        self.row += 1;
        let (path, row) = (&self.path, self.row);
        let bytes = self.decoded.pop_front().flatten().ok_or_else(|| TextError::Null {
            path: path.clone(),
            row,
            column: self.name.clone(),
        })?;
        let text = bytes.as_utf8().map_err(|_| TextError::NotUtf8 { path: path.clone(), line: row })?;
        Ok(Some(text.to_owned()))
    }

    /// Leaves out up to `rows` rows, without decoding row groups that are left out as a whole. Returns how
    /// many there were.
    pub fn skip(&mut self, rows: u64) -> Result<u64> {
        let mut skipped = 0;
        while skipped < rows && self.reader.is_none() && self.group < self.file.num_row_groups() {
            let whole = u64::try_from(self.file.metadata().row_group(self.group).num_rows()).unwrap_or(0);
            if whole > rows - skipped {
                break;
            }
            (skipped, self.row, self.group) = (skipped + whole, self.row + whole, self.group + 1);
        }
        while skipped < rows && self.next()?.is_some() {
            skipped += 1;
        }
        Ok(skipped)
    }

    /// Decodes some more rows; returns false at the end of the file.
    fn decode(&mut self) -> Result<bool> {
        let ParquetColumn { file, path, column, defined, group, reader, decoded, .. } = self;
        let current = match reader {
            Some(reader) => reader,
            None if *group == file.num_row_groups() => return Ok(false),
            None => {
                let column = contained(path, || file.get_row_group(*group)?.get_column_reader(*column))?;
                *group += 1;
                let ColumnReader::ByteArrayColumnReader(column) = column else { return Ok(true) };
                reader.insert(column)
            }
        };
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let (found, ..) =
            contained(path, || current.read_records(ROWS, Some(&mut levels), None, &mut values))?;
        if found == 0 {
            *reader = None;
            return Ok(true);
        }
        let mut values = values.into_iter();
        // Without levels, no value can be null.
        let present = |row: usize| levels.get(row).is_none_or(|level| *level == *defined);
        decoded.extend((0..found).map(|row| if present(row) { values.next() } else { None }));
        Ok(true)
    }
}

/// The decoder trusts the lengths in a file's pages, and panics if damage has changed them.
fn contained<T>(path: &Path, read: impl FnOnce() -> std::result::Result<T, ParquetError>) -> Result<T> {
    let damaged = |_| Err(ParquetError::General("a page is damaged".to_owned()));
    let result = panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(damaged);
    result.map_err(|error| TextError::Parquet { path: path.to_owned(), reason: error.to_string() })
}
