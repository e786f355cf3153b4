//! Reads numbered lines from a plain or compressed text file, in bounded memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::error::{Result, TextError};

/// The maximum length of a line or document; anything longer is assumed to be a mistake (a binary file, a
/// decompression bomb).
pub(super) const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// The lines of a text file, which may be compressed as `.gz` or `.zst`. Stop at the first error.
///
/// # Errors
/// If the file cannot be opened or read, or is not UTF-8.
pub fn lines(path: &Path) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let mut lines = Lines::open(path)?;
    Ok(std::iter::from_fn(move || lines.next_line().map(|line| line.map(str::to_owned)).transpose()))
}

/// A file's bytes, decompressed.
pub(super) fn decoded(path: &Path) -> Result<Box<dyn Read + Send>> {
    let failed = |source| TextError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    Ok(match path.extension().and_then(|extension| extension.to_str()) {
        // Concatenated members form one stream: shards are often assembled that way.
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::stream::read::Decoder::new(file).map_err(failed)?),
        _ => Box::new(file),
    })
}

pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    pub path: PathBuf,
    /// Of the line read last, from 1.
    pub number: u64,
    buffer: Vec<u8>,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Self> {
        let reader = BufReader::with_capacity(1 << 16, decoded(path)?);
        Ok(Self { reader, path: path.to_owned(), number: 0, buffer: Vec::new() })
    }

    /// The next line without its line end; `None` at the end of the file.
    pub fn next_line(&mut self) -> Result<Option<&str>> {
        self.buffer.clear();
        let line = self.number + 1;
        let read = (&mut self.reader)
            .take(MAX_DOCUMENT_BYTES)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|source| TextError::ReadLine { path: self.path.clone(), line, source })?;
        if read == 0 {
            return Ok(None);
        }
        self.number = line;
        if read as u64 == MAX_DOCUMENT_BYTES {
            return Err(self.too_long());
        }
        let text = std::str::from_utf8(&self.buffer)
            .map_err(|_| TextError::NotUtf8 { path: self.path.clone(), line })?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        Ok(Some(if line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text }))
    }

    pub fn too_long(&self) -> TextError {
        TextError::DocumentTooLong { path: self.path.clone(), line: self.number, limit: MAX_DOCUMENT_BYTES }
    }
}
