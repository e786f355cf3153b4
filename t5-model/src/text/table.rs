//! Documents in a column of a CSV or TSV file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use csv::{Reader, ReaderBuilder, StringRecord};

use super::error::{Result, TextError};
use super::lines::{MAX_DOCUMENT_BYTES, decoded};

/// A file with a header, of which one column holds documents. Fields may be quoted as in RFC 4180.
pub(super) struct Table {
    reader: Reader<Bounded>,
    path: PathBuf,
    column: usize,
    record: StringRecord,
}

impl Table {
    /// Reads the header.
    ///
    /// # Errors
    /// If the file cannot be read, or has no such column.
    pub fn open(path: &Path, delimiter: u8, column: &str) -> Result<Self> {
        let decoded = Bounded { decoded: decoded(path)?, left: MAX_DOCUMENT_BYTES };
        let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(decoded);
        let header = reader.headers().map_err(|error| failed(path, &error))?;
        let found = header.iter().position(|name| name == column).ok_or_else(|| TextError::NoColumn {
            path: path.to_owned(),
            column: column.to_owned(),
            found: header.iter().map(str::to_owned).collect(),
        })?;
        Ok(Table { reader, path: path.to_owned(), column: found, record: StringRecord::new() })
    }

    /// The next row's document.
    pub fn next(&mut self) -> Result<Option<String>> {
        self.reader.get_mut().left = MAX_DOCUMENT_BYTES;
        let more = self.reader.read_record(&mut self.record).map_err(|error| failed(&self.path, &error))?;
        Ok(more.then(|| self.record.get(self.column).unwrap_or_default().to_owned()))
    }
}

fn failed(path: &Path, error: &csv::Error) -> TextError {
    let line = error.position().map_or(1, csv::Position::line);
    let reason = match error.kind() {
        csv::ErrorKind::Io(error) => error.to_string(),
        csv::ErrorKind::Utf8 { .. } => return TextError::NotUtf8 { path: path.to_owned(), line },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the row has {len} fields, but the header {expected_len}")
        }
        _ => error.to_string(),
    };
    TextError::Row { path: path.to_owned(), line, reason }
}

/// Reads no more than a row may have: a quote that is never closed would take the rest of the file.
struct Bounded {
    decoded: Box<dyn Read + Send>,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let problem = format!("a row of more than {MAX_DOCUMENT_BYTES} bytes; is a quote not closed?");
            return Err(io::Error::other(problem));
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.decoded.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}
