//! TOML with source locations. A recipe is assembled from several texts; spans run through all of them, so
//! that an error in a merged recipe still has its file, line and column.

mod merge;

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Error, Result, anyhow};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

pub use merge::{load, merge};

pub type Table = DeTable<'static>;
pub type Value = Spanned<DeValue<'static>>;

/// Files, and overrides from the command line.
#[derive(Default)]
pub struct Texts {
    texts: Vec<Text>,
}

struct Text {
    name: String,
    /// What its relative paths are relative to.
    directory: PathBuf,
    /// The offset at which its spans begin.
    start: usize,
    text: String,
    /// Whether it comes from the command line.
    is_override: bool,
}

impl Texts {
    /// Parses a text whose relative paths are relative to `directory`.
    pub fn parse(
        &mut self,
        name: String,
        directory: &Path,
        text: String,
    ) -> Result<Spanned<DeTable<'static>>> {
        let start = self.texts.last().map_or(0, |last| last.start + last.text.len() + 1);
        // Spans are offsets into the parsed text: leading blanks shift them past the preceding texts. The
        // parser's types borrow from the text even where they own it; a recipe is read once, so leaking it is
        // harmless.
        let padded: &'static str = format!("{}{text}", " ".repeat(start)).leak();
        self.texts.push(Text { name, directory: directory.to_owned(), start, text, is_override: false });
        DeTable::parse(padded).map_err(|error| self.toml_error(&error))
    }

    /// The same for a text that overrides others.
    pub fn parse_override(
        &mut self,
        name: String,
        directory: &Path,
        text: String,
    ) -> Result<Spanned<DeTable<'static>>> {
        let parsed = self.parse(name, directory, text);
        self.texts.iter_mut().last().into_iter().for_each(|text| text.is_override = true);
        parsed
    }

    /// The texts by name, each file before those that it includes, the overrides last.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|text| (text.name.as_str(), text.text.as_str()))
    }

    /// Whether a place is in a text that overrides others.
    pub fn is_override(&self, span: &Range<usize>) -> bool {
        self.at(span.start).is_some_and(|text| text.is_override)
    }

    /// `file:line:column: message`.
    pub fn error(&self, span: Range<usize>, message: impl std::fmt::Display) -> Error {
        let Some(text) = self.at(span.start) else { return anyhow!("{message}") };
        let before = text.text.get(..span.start.saturating_sub(text.start)).unwrap_or(&text.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        anyhow!("{}:{line}:{column}: {message}", text.name)
    }

    /// The same for an error from the parser.
    pub fn toml_error(&self, error: &toml::de::Error) -> Error {
        let message = error.message().trim_end().replace('\n', ", ").replace("missing field", "there is no");
        match error.span() {
            Some(span) => self.error(span, message),
            None => anyhow!("{message}"),
        }
    }

    /// Requires a value to be a table.
    pub fn table(&self, value: Value, name: &str) -> Result<Table> {
        let (span, kind) = (value.span(), value.get_ref().type_str());
        match value.into_inner() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.error(span, format!("`{name}` must be a table, not {kind}"))),
        }
    }

    /// Takes a table out of another; empty if there is none.
    pub fn take_table(&self, table: &mut Table, key: &str) -> Result<Table> {
        table.remove(key).map_or(Ok(Table::new()), |value| self.table(value, key))
    }

    /// Takes a value out of a table.
    pub fn take<T: DeserializeOwned>(&self, table: &mut Table, key: &str) -> Result<Option<T>> {
        table.remove(key).map(|value| self.read(value)).transpose()
    }

    pub fn read<T: DeserializeOwned>(&self, value: Value) -> Result<T> {
        T::deserialize(ValueDeserializer::from(value)).map_err(|error| self.toml_error(&error))
    }

    /// What a relative path at this place is relative to.
    pub fn directory(&self, span: Range<usize>) -> &Path {
        self.at(span.start).map_or(Path::new(""), |text| &text.directory)
    }

    fn at(&self, offset: usize) -> Option<&Text> {
        self.texts.iter().rev().find(|text| text.start <= offset)
    }
}
