//! Reads documents from files in C4's layout, from plain text, or from memory.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::error::{Result, TextError};
use super::lines::{Lines, MAX_DOCUMENT_BYTES};

/// An ordered list of files containing documents.
///
/// `.json` and `.jsonl` contain one JSON object per line, whose string field `text` is the document (C4's
/// layout); other fields and blank lines are ignored. In `.txt`, blank lines separate documents. All may be
/// compressed as `.gz` (also with several members) or `.zst`.
#[derive(Clone, Debug)]
pub struct Corpus {
    sources: Vec<Source>,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Memory { name: String, documents: Arc<[String]> },
}

impl Corpus {
    /// Resolves files, folders (all readable files below, sorted by path) and glob patterns, in the given
    /// order. A file named by several inputs is read once.
    ///
    /// # Errors
    /// If an input matches nothing, a folder contains no readable file, or a file is of another kind.
    pub fn open<S: AsRef<str>>(inputs: &[S]) -> Result<Self> {
        let mut paths: Vec<PathBuf> = Vec::new();
        let mut seen = HashSet::new();
        for input in inputs {
            for path in resolve(input.as_ref())? {
                if seen.insert(path.clone()) {
                    paths.push(path);
                }
            }
        }
        if paths.is_empty() {
            return Err(TextError::NoInputs);
        }
        Ok(Self { sources: paths.into_iter().map(Source::File).collect() })
    }

    /// Text already in memory, as a single file called `name`.
    pub fn from_documents(name: impl Into<String>, documents: Vec<String>) -> Self {
        Self { sources: vec![Source::Memory { name: name.into(), documents: documents.into() }] }
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

fn resolve(input: &str) -> Result<Vec<PathBuf>> {
    let path = PathBuf::from(input);
    let paths = if path.exists() { vec![path] } else { matches(input)? };
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(folder(&path)?);
        } else if kind(&path).is_some() {
            found.push(path);
        } else {
            return Err(TextError::Extension { path });
        }
    }
    if found.is_empty() {
        return Err(TextError::NoMatch { input: input.to_owned() });
    }
    Ok(found)
}

fn folder(path: &Path) -> Result<Vec<PathBuf>> {
    let pattern = format!("{}/**/*", glob::Pattern::escape(&path.to_string_lossy()));
    let files: Vec<_> =
        matches(&pattern)?.into_iter().filter(|path| kind(path).is_some() && path.is_file()).collect();
    if files.is_empty() {
        return Err(TextError::EmptyFolder { path: path.to_owned() });
    }
    Ok(files)
}

/// Sorted by path; symbolic links to folders are not followed below `**`.
fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let failed = |reason: String| TextError::Glob { input: pattern.to_owned(), reason };
    let mut paths: Vec<_> = glob::glob(pattern)
        .map_err(|error| failed(error.to_string()))?
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| TextError::Read { path: error.path().to_owned(), source: error.into() })?;
    paths.sort();
    Ok(paths)
}

/// `json`, `jsonl` or `txt`, ignoring the compression.
fn kind(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    let (_, kind) = name.rsplit_once('.')?;
    ["json", "jsonl", "txt"].contains(&kind).then_some(kind)
}
