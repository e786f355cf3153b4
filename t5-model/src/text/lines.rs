//! Reads numbered lines from a plain or compressed text file, in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use fusion_core::Mistaken;

use super::error::{Result, TextError};

/// The maximum length of a line or document; anything longer is assumed to be a mistake (a binary file, a
/// decompression bomb).
pub(super) const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// What `zstd --ultra --long=31` writes needs a window of 2 GiB, which the decoder only takes where a file uses it.
const MAX_WINDOW_LOG: u32 = if cfg!(target_pointer_width = "64") { 31 } else { 30 };

/// The lines of a text file, which may be compressed as `.gz` or `.zst`. Stop at the first error.
///
/// # Errors
/// If the file cannot be opened or read, or is not UTF-8.
pub fn lines(path: &Path) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let mut lines = Lines::open(path)?;
    Ok(std::iter::from_fn(move || lines.next_line().map(|line| line.map(str::to_owned)).transpose()))
}

/// A file's bytes, decompressed.
pub(super) fn decoded(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let failed = |source| TextError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    if let Some(what) = Mistaken::of(file.fill_buf().map_err(failed)?) {
        return Err(fusion_core::Error::Mistaken { path: path.to_owned(), what }.into());
    }
    Ok(match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(BufReader::with_capacity(1 << 16, GzipMembers::new(file))),
        Some("zst") => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(file).map_err(failed)?;
            decoder.window_log_max(MAX_WINDOW_LOG).map_err(failed)?;
            Box::new(BufReader::with_capacity(1 << 16, decoder))
        }
        _ => Box::new(file),
    })
}

pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    pub path: PathBuf,
    /// Of the line read last, from 1.
    pub number: u64,
    buffer: Vec<u8>,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Self> {
        let reader = decoded(path)?;
        Ok(Self { reader, path: path.to_owned(), number: 0, buffer: Vec::new() })
    }

    /// The next line without its line end; `None` at the end of the file.
    pub fn next_line(&mut self) -> Result<Option<&str>> {
        self.buffer.clear();
        let line = self.number + 1;
        if line == 1 {
            self.check_beginning()?;
        }
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

    fn check_beginning(&mut self) -> Result<()> {
        let failed = |source| TextError::ReadLine { path: self.path.clone(), line: 1, source };
        match Mistaken::of(self.reader.fill_buf().map_err(failed)?) {
            Some(what) => Err(fusion_core::Error::Mistaken { path: self.path.clone(), what }.into()),
            None => Ok(()),
        }
    }

    pub fn too_long(&self) -> TextError {
        TextError::DocumentTooLong { path: self.path.clone(), line: self.number, limit: MAX_DOCUMENT_BYTES }
    }
}

/// The members of a gzip file, one after the other: shards are often assembled that way. Zeros behind a member are passed
/// over, as gzip does: tapes and object stores fill up blocks with them.
struct GzipMembers<R> {
    /// `None` at the end of the file.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipMembers<R> {
    fn new(file: R) -> Self {
        GzipMembers { member: Some(GzDecoder::new(file)) }
    }
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            match first_not_zero(&mut rest)? {
                None => {}
                Some(0x1f) => self.member = Some(GzDecoder::new(rest)),
                Some(_) => {
                    let problem = "what follows the compressed data is neither gzip nor zeros";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
                }
            }
        }
        Ok(0)
    }
}

/// Passes over zeros, and returns the next byte without passing over it.
fn first_not_zero(reader: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = reader.fill_buf()?;
        match buffer.iter().position(|byte| *byte != 0) {
            Some(zeros) => {
                let next = buffer.get(zeros).copied();
                reader.consume(zeros);
                return Ok(next);
            }
            None if buffer.is_empty() => return Ok(None),
            None => {
                let zeros = buffer.len();
                reader.consume(zeros);
            }
        }
    }
}
