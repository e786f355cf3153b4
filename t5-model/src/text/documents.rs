//! Reads documents from files in C4's layout, from plain text, or from memory.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::error::{Result, TextError};
use super::find::{Found, LeftOut, find, kind};
use super::lines::{Lines, MAX_DOCUMENT_BYTES};

/// An ordered list of files containing documents.
///
/// `.json` and `.jsonl` contain one JSON object per line, whose string field `text` is the document (C4's
/// layout); other fields and blank lines are ignored. In `.txt`, blank lines separate documents. All may be
/// compressed as `.gz` (also with several members) or `.zst`.
#[derive(Clone, Debug)]
pub struct Corpus {
    sources: Vec<Source>,
    left_out: Arc<[LeftOut]>,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Memory { name: String, documents: Arc<[String]> },
}

impl Corpus {
    /// Resolves files, folders (all readable files below, sorted by path) and glob patterns, in the given
    /// order. A file is read once, whatever names and links lead to it. Hidden files and folders are left out
    /// unless they are named ([`Corpus::left_out`]); links to folders are followed.
    ///
    /// # Errors
    /// If an input matches nothing, a folder contains no readable file, a file is of another kind, or a link
    /// leads nowhere.
    pub fn open<S: AsRef<str>>(inputs: &[S]) -> Result<Self> {
        let Found { files, left_out, .. } = find(inputs)?;
        Ok(Self { sources: files.into_iter().map(Source::File).collect(), left_out: left_out.into() })
    }

    /// Files and folders that were found but are not read.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Text already in memory, as a single file called `name`.
    pub fn from_documents(name: impl Into<String>, documents: Vec<String>) -> Self {
        let source = Source::Memory { name: name.into(), documents: documents.into() };
        Self { sources: vec![source], left_out: Arc::default() }
    }

    /// The number of files.
    pub fn file_count(&self) -> usize {
        self.sources.len()
    }

    /// The files' names in messages.
    pub fn names(&self) -> Vec<String> {
        self.sources.iter().map(Source::name).collect()
    }

    /// The documents of file `file`, starting at document `first`; none if there is no such file.
    ///
    /// # Errors
    /// If the file cannot be opened or read, or has fewer than `first` documents.
    pub fn documents(&self, file: usize, first: u64) -> Result<Option<Documents>> {
        let Some(source) = self.sources.get(file) else { return Ok(None) };
        let reader = match source {
            Source::File(path) => {
                let lines = Lines::open(path)?;
                if kind(path) == Some("txt") { Reader::Text(lines) } else { Reader::Json(lines) }
            }
            Source::Memory { documents, .. } => Reader::Memory { documents: Arc::clone(documents), next: 0 },
        };
        let mut documents = Documents { reader };
        for skipped in 0..first {
            if !documents.skip_document()? {
                return Err(TextError::Position {
                    position: format!("document {first} of {}", source.name()),
                    reason: format!("it has {skipped} documents"),
                });
            }
        }
        Ok(Some(documents))
    }
}

impl Source {
    fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Memory { name, .. } => name.clone(),
        }
    }
}

/// Iterator over the documents of one file. Stop at the first error: what follows is undefined.
pub struct Documents {
    reader: Reader,
}

enum Reader {
    Json(Lines),
    Text(Lines),
    Memory { documents: Arc<[String]>, next: usize },
}

#[derive(Deserialize)]
struct Record {
    text: String,
}

impl Documents {
    fn next_document(&mut self) -> Result<Option<String>> {
        match &mut self.reader {
            Reader::Json(lines) => next_record(lines),
            Reader::Text(lines) => next_paragraph(lines),
            Reader::Memory { documents, next } => {
                let document = documents.get(*next).cloned();
                *next += 1;
                Ok(document)
            }
        }
    }

    /// Skips a document without parsing it; returns false at the end of the file.
    fn skip_document(&mut self) -> Result<bool> {
        match &mut self.reader {
            Reader::Json(lines) => loop {
                match lines.next_line()? {
                    None => return Ok(false),
                    Some(line) if line.trim().is_empty() => {}
                    Some(_) => return Ok(true),
                }
            },
            _ => Ok(self.next_document()?.is_some()),
        }
    }
}

impl Iterator for Documents {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_document().transpose()
    }
}

fn next_record(lines: &mut Lines) -> Result<Option<String>> {
    loop {
        let Some(line) = lines.next_line()? else { return Ok(None) };
        if line.trim().is_empty() {
            continue;
        }
        return match serde_json::from_str::<Record>(line) {
            Ok(record) => Ok(Some(record.text)),
            Err(error) => Err(TextError::Json {
                path: lines.path.clone(),
                line: lines.number,
                reason: json_reason(&error),
            }),
        };
    }
}

/// Shortens serde_json's `… at line 1 column 7`: a single line is parsed, so only the column is meaningful.
fn json_reason(error: &serde_json::Error) -> String {
    error.to_string().replace(&format!(" at line {} column ", error.line()), " at column ")
}

fn next_paragraph(lines: &mut Lines) -> Result<Option<String>> {
    let mut document = String::new();
    while let Some(line) = lines.next_line()? {
        match (line.trim().is_empty(), document.is_empty()) {
            (true, true) => continue,
            (true, false) => break,
            (false, true) => {}
            (false, false) => document.push('\n'),
        }
        document.push_str(line);
        if document.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(lines.too_long());
        }
    }
    Ok((!document.is_empty()).then_some(document))
}
