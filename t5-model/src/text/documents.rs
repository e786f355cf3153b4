//! Reads documents from files in C4's layout, from plain text, from columns of tables, from files of tokens, or from
//! memory.

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
use super::tokenizer::Tokenizer;
use super::tokens::TokenFile;

/// An ordered list of files containing documents.
///
/// `.json` and `.jsonl` contain one JSON object per line, whose string field `text` is the document (C4's
/// layout); other fields and blank lines are ignored. In `.txt`, blank lines separate documents. In `.csv`
/// and `.tsv`, whose first row names the columns, and in `.parquet`, the document is a row's value in the column
/// `text`. The field or column may have another name. All but Parquet files may be compressed as `.gz` (also
/// with several members) or `.zst`. `.tokens` files, which [`write_tokens`](super::write_tokens) writes, hold
/// documents that were tokenised before.
#[derive(Clone, Debug)]
pub struct Corpus {
    sources: Vec<Source>,
    left_out: Arc<[LeftOut]>,
    field: Arc<str>,
    /// The fingerprint that files of tokens have to have.
    vocabulary: Option<Arc<str>>,
}

/// The field or column that holds documents unless another is named.
pub const TEXT_FIELD: &str = "text";

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Remote(Arc<dyn RemoteFile>),
    Memory { name: String, documents: Arc<[String]> },
}

/// A file elsewhere, which is fetched when it is read.
pub trait RemoteFile: fmt::Debug + Send + Sync {
    /// Its name in messages, which ends as that of a file does (`s3://bucket/shard.json.gz`).
    fn name(&self) -> &str;

    /// Its size in bytes, if that is known.
    fn size(&self) -> Option<u64>;

    /// What changes when its content does, as its server tells it.
    fn version(&self) -> &str;

    /// Brings it onto this machine, unless it is there, and returns where it is. Several threads and processes may
    /// ask for it at once.
    ///
    /// # Errors
    /// If it cannot be fetched, even after trying again.
    fn fetch(&self) -> std::result::Result<PathBuf, Box<dyn std::error::Error + Send + Sync>>;
}

/// A document of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// As text.
    Text(String),
    /// As tokens of the vocabulary that its file was made with.
    Tokens(Vec<i32>),
}

impl Document {
    /// Its text.
    ///
    /// # Errors
    /// If it is there as tokens.
    pub fn into_text(self) -> Result<String> {
        match self {
            Document::Text(text) => Ok(text),
            Document::Tokens(_) => Err(TextError::TokensAsText),
        }
    }
}

/// Where the content of one of a corpus's files is.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// In a file.
    File(&'a Path),
    /// Elsewhere.
    Remote(&'a dyn RemoteFile),
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
        Ok(Self { left_out: left_out.into(), ..Self::of(sources) })
    }

    /// Files and folders that were found but are not read.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Text already in memory, as a single file called `name`.
    pub fn from_documents(name: impl Into<String>, documents: Vec<String>) -> Self {
        let sources = vec![Source::Memory { name: name.into(), documents: documents.into() }];
        Self::of(sources)
    }

    fn of(sources: Vec<Source>) -> Self {
        Self { sources, left_out: Arc::default(), field: TEXT_FIELD.into(), vocabulary: None }
    }

    /// Files elsewhere, in this order.
    pub fn from_remote(files: Vec<Arc<dyn RemoteFile>>) -> Self {
        Self::of(files.into_iter().map(Source::Remote).collect())
    }

    /// The files of this corpus, then those of another.
    pub fn and(mut self, other: Corpus) -> Self {
        self.sources.extend(other.sources);
        self.left_out = self.left_out.iter().chain(other.left_out.iter()).cloned().collect();
        self
    }

    /// The same files, with documents in another field or column than `text`. Plain text has none.
    pub fn with_field(self, field: &str) -> Self {
        Self { field: field.into(), ..self }
    }

    /// Whether any file is in the Parquet format, which only a program with that feature reads.
    pub fn has_parquet(&self) -> bool {
        self.sources.iter().any(|source| source.kind() == Some("parquet"))
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
            Source::Remote(file) => Content::Remote(&**file),
            Source::Memory { name, documents } => Content::Memory { name, documents },
        })
    }

    /// The same files, of which those of tokens have to be of this tokenizer's vocabulary.
    pub(super) fn with_vocabulary(self, tokenizer: &Tokenizer) -> Self {
        Self { vocabulary: Some(tokenizer.fingerprint().into()), ..self }
    }

    /// Begins to fetch a file that is elsewhere, so that it is there when its documents are asked for. Whether that
    /// succeeds, they will say.
    pub(super) fn expect(&self, file: usize) {
        if let Some(Source::Remote(file)) = self.sources.get(file) {
            let file = Arc::clone(file);
            std::thread::spawn(move || file.fetch().map(drop));
        }
    }

    /// The documents of file `file`, starting at document `first`; none if there is no such file.
    ///
    /// # Errors
    /// If the file cannot be fetched, opened or read, or has fewer than `first` documents.
    pub fn documents(&self, file: usize, first: u64) -> Result<Option<Documents>> {
        let Some(source) = self.sources.get(file) else { return Ok(None) };
        let reader = match source {
            Source::File(path) => self.reader(path)?,
            Source::Remote(file) => {
                let failed = |source| TextError::Fetch { name: file.name().to_owned(), source };
                self.reader(&file.fetch().map_err(failed)?)?
            }
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

    fn reader(&self, path: &Path) -> Result<Reader> {
        Ok(match kind(path) {
            Some("txt") => Reader::Text(Lines::open(path)?),
            Some("csv") => Reader::Table(Table::open(path, b',', &self.field)?),
            Some("tsv") => Reader::Table(Table::open(path, b'\t', &self.field)?),
            Some("tokens") => {
                let file = TokenFile::open(path)?;
                if let Some(vocabulary) = &self.vocabulary {
                    file.check_vocabulary(vocabulary)?;
                }
                Reader::Tokens { file, next: 0 }
            }
            #[cfg(feature = "parquet")]
            Some("parquet") => Reader::Parquet(Box::new(ParquetColumn::open(path, &self.field)?)),
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => return Err(TextError::NoParquet { path: path.to_owned() }),
            _ => Reader::Json(Lines::open(path)?, Arc::clone(&self.field)),
        })
    }
}

impl Source {
    fn kind(&self) -> Option<&'static str> {
        match self {
            Source::File(path) => kind(path),
            Source::Remote(file) => kind(Path::new(file.name())),
            Source::Memory { .. } => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Remote(file) => file.name().to_owned(),
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
    Tokens {
        file: TokenFile,
        next: u64,
    },
    Memory {
        documents: Arc<[String]>,
        next: usize,
    },
}

impl Documents {
    fn next_document(&mut self) -> Result<Option<Document>> {
        let text = match &mut self.reader {
            Reader::Json(lines, field) => next_record(lines, field)?,
            Reader::Text(lines) => next_paragraph(lines)?,
            Reader::Table(table) => table.next()?,
            #[cfg(feature = "parquet")]
            Reader::Parquet(column) => column.next()?,
            Reader::Tokens { file, next } => {
                let document = file.document(*next);
                *next += 1;
                return Ok(document.map(Document::Tokens));
            }
            Reader::Memory { documents, next } => {
                let document = documents.get(*next).cloned();
                *next += 1;
                document
            }
        };
        Ok(text.map(Document::Text))
    }

    /// Skips up to this many documents without parsing them; returns how many there were.
    fn skip_documents(&mut self, count: u64) -> Result<u64> {
        #[cfg(feature = "parquet")]
        if let Reader::Parquet(column) = &mut self.reader {
            return column.skip(count);
        }
        if let Reader::Tokens { file, next } = &mut self.reader {
            *next = count.min(file.documents());
            return Ok(*next);
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
    type Item = Result<Document>;

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
