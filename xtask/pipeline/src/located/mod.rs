//! The texts that a recipe is put together from. Spans count through all of them, so that an error in a merged recipe
//! still knows its file, line and column.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Error, Result, anyhow};
use toml::Spanned;
use toml::de::DeTable;

/// Files, and what the command line overrides.
#[derive(Default)]
pub struct Sources {
    texts: Vec<SourceText>,
}

struct SourceText {
    name: String,
    /// What its relative paths start from.
    directory: PathBuf,
    /// Where its spans begin.
    start: usize,
    text: String,
}

impl Sources {
    /// Parses a text whose relative paths start from `directory`.
    pub fn parse(
        &mut self,
        name: String,
        directory: &Path,
        text: String,
    ) -> Result<Spanned<DeTable<'static>>> {
        let start = self.texts.last().map_or(0, |last| last.start + last.text.len() + 1);
        // Spans are offsets into the parsed text: blanks in front move them behind the texts before. The parser's
        // types borrow from the text even where they own it; a recipe is read once and as good as static.
        let padded: &'static str = format!("{}{text}", " ".repeat(start)).leak();
        self.texts.push(SourceText { name, directory: directory.to_owned(), start, text });
        DeTable::parse(padded).map_err(|error| self.toml_error(&error))
    }

    /// `file:line:column: message`.
    pub fn error(&self, span: Range<usize>, message: impl std::fmt::Display) -> Error {
        let Some(source) = self.at(span.start) else { return anyhow!("{message}") };
        let before = source.text.get(..span.start.saturating_sub(source.start)).unwrap_or(&source.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        anyhow!("{}:{line}:{column}: {message}", source.name)
    }

    /// The same of an error that the parser found.
    pub fn toml_error(&self, error: &toml::de::Error) -> Error {
        let message = error.message().trim_end().replace('\n', ", ");
        match error.span() {
            Some(span) => self.error(span, message),
            None => anyhow!("{message}"),
        }
    }

    /// What a relative path at this place starts from.
    pub fn directory(&self, span: Range<usize>) -> &Path {
        self.at(span.start).map_or(Path::new(""), |source| &source.directory)
    }

    fn at(&self, offset: usize) -> Option<&SourceText> {
        self.texts.iter().rev().find(|source| source.start <= offset)
    }
}
