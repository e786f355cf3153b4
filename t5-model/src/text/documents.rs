//! Reads documents from files in C4's layout, from plain text, from columns of tables, or from memory.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};

use super::error::{Result, TextError};
use super::find::{Found, LeftOut, find, kind};
use super::lines::{Lines, MAX_DOCUMENT_BYTES};
#[cfg(feature = "parquet")]
use super::parquet::ParquetColumn;
use super::table::Table;

/// An ordered list of files containing documents.
///
/// `.json` and `.jsonl` contain one JSON object per line, whose string field `text` is the document (C4's
/// layout); other fields and blank lines are ignored. In `.txt`, blank lines separate documents. In `.csv`
/// and `.tsv`, whose first row names the columns, and in `.parquet`, the document is a row's value in the column
/// `text`. The field or column may have another name. All but Parquet files may be compressed as `.gz` (also
/// with several members) or `.zst`.
#[derive(Clone, Debug)]
pub struct Corpus {
    sources: Vec<Source>,
    left_out: Arc<[LeftOut]>,
    field: Arc<str>,
}

/// The field or column that holds documents unless another is named.
pub const TEXT_FIELD: &str = "text";

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Memory { name: String, documents: Arc<[String]> },
}

/// Where the content of one of a corpus's files is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Content<'a> {
    /// In a file.
    File(&'a Path),
    /// In memory.
    Memory {
        /// Its name in messages.
        name: &'a str,
        /// All of it.
        documents: &'a [String],
    },
}

impl Corpus {
    /// Resolves files, folders and glob patterns, in the given order. Of a folder, all files below it are read
    /// that hold JSON or plain text, sorted by path, or if there are none, all tables. A file is read once,
    /// whatever names and links lead to it. Hidden files and folders are left out unless they are named
    /// ([`Corpus::left_out`]); links to folders are followed.
    ///
    /// # Errors
    /// If an input matches nothing, a folder contains no readable file, a file is of another kind, or a link
    /// leads nowhere.
    pub fn open<S: AsRef<str>>(inputs: &[S]) -> Result<Self> {
        let Found { files, left_out, .. } = find(inputs)?;
        let sources = files.into_iter().map(Source::File).collect();
        Ok(Self { sources, left_out: left_out.into(), field: TEXT_FIELD.into() })
    }

    /// Files and folders that were found but are not read.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Text already in memory, as a single file called `name`.
    pub fn from_documents(name: impl Into<String>, documents: Vec<String>) -> Self {
        let sources = vec![Source::Memory { name: name.into(), documents: documents.into() }];
        Self { sources, left_out: Arc::default(), field: TEXT_FIELD.into() }
    }

    /// The same files, with documents in another field or column than `text`. Plain text has none.
    pub fn with_field(self, field: &str) -> Self {
        Self { field: field.into(), ..self }
    }

    /// Whether any file is in the Parquet format, which only a program with that feature reads.
    pub fn has_parquet(&self) -> bool {
        let is_parquet =
            |source: &Source| matches!(source, Source::File(path) if kind(path) == Some("parquet"));
        self.sources.iter().any(is_parquet)
    }

    /// The number of files.
    pub fn file_count(&self) -> usize {
        self.sources.len()
    }

    /// The files' names in messages.
    pub fn names(&self) -> Vec<String> {
        self.sources.iter().map(Source::name).collect()
    }

    /// Where each file's content is.
    pub fn contents(&self) -> impl Iterator<Item = Content<'_>> {
        self.sources.iter().map(|source| match source {
            Source::File(path) => Content::File(path),
            Source::Memory { name, documents } => Content::Memory { name, documents },
        })
    }

    /// The documents of file `file`, starting at document `first`; none if there is no such file.
    ///
    /// # Errors
    /// If the file cannot be opened or read, or has fewer than `first` documents.
    pub fn documents(&self, file: usize, first: u64) -> Result<Option<Documents>> {
        let Some(source) = self.sources.get(file) else { return Ok(None) };
        let reader = match source {
            Source::File(path) => match kind(path) {
                Some("txt") => Reader::Text(Lines::open(path)?),
                Some("csv") => Reader::Table(Table::open(path, b',', &self.field)?),
                Some("tsv") => Reader::Table(Table::open(path, b'\t', &self.field)?),
                #[cfg(feature = "parquet")]
                Some("parquet") => Reader::Parquet(Box::new(ParquetColumn::open(path, &self.field)?)),
                #[cfg(not(feature = "parquet"))]
                Some("parquet") => return Err(TextError::NoParquet { path: path.clone() }),
                _ => Reader::Json(Lines::open(path)?, Arc::clone(&self.field)),
            },
            Source::Memory { documents, .. } => Reader::Memory { documents: Arc::clone(documents), next: 0 },
        };
        let mut documents = Documents { reader };
        let skipped = documents.skip_documents(first)?;
        if skipped < first {
            return Err(TextError::Position {
                position: format!("document {first} of {}", source.name()),
                reason: format!("it has {skipped} documents"),
            });
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
    /// With the field that holds the document.
    Json(Lines, Arc<str>),
    Text(Lines),
    Table(Table),
    #[cfg(feature = "parquet")]
    Parquet(Box<ParquetColumn>),
    Memory {
        documents: Arc<[String]>,
        next: usize,
    },
}

impl Documents {
    fn next_document(&mut self) -> Result<Option<String>> {
        match &mut self.reader {
            Reader::Json(lines, field) => next_record(lines, field),
            Reader::Text(lines) => next_paragraph(lines),
            Reader::Table(table) => table.next(),
            #[cfg(feature = "parquet")]
            Reader::Parquet(column) => column.next(),
            Reader::Memory { documents, next } => {
                let document = documents.get(*next).cloned();
                *next += 1;
                Ok(document)
            }
        }
    }

    /// Skips up to this many documents without parsing them; returns how many there were.
    fn skip_documents(&mut self, count: u64) -> Result<u64> {
        #[cfg(feature = "parquet")]
        if let Reader::Parquet(column) = &mut self.reader {
            return column.skip(count);
        }
        for skipped in 0..count {
            if !self.skip_document()? {
                return Ok(skipped);
            }
        }
        Ok(count)
    }

    /// Skips a document; returns false at the end of the file.
    fn skip_document(&mut self) -> Result<bool> {
        match &mut self.reader {
            Reader::Json(lines, _) => loop {
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

/// The string in one field of a JSON object.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        let mut text = None;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match key == self.0 {
                false => map.next_value::<IgnoredAny>().map(drop)?,
                true if text.is_some() => {
                    return Err(A::Error::custom(format!("duplicate field `{}`", self.0)));
                }
                true => text = Some(map.next_value()?),
            }
        }
        text.ok_or_else(|| A::Error::custom(format!("missing field `{}`", self.0)))
    }
}

fn next_record(lines: &mut Lines, field: &str) -> Result<Option<String>> {
    loop {
        let Some(line) = lines.next_line()? else { return Ok(None) };
        if line.trim().is_empty() {
            continue;
        }
        let mut json = serde_json::Deserializer::from_str(line);
        let text = Field(field).deserialize(&mut json).and_then(|text| json.end().map(|()| text));
        return match text {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(TextError::Json {
                path: lines.path.clone(),
                line: lines.number,
                field: field.to_owned(),
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
