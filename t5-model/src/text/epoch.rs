//! One pass over a corpus: the order of its files, the documents that it includes, and their positions.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::documents::{Corpus, Document, Documents};
use super::error::{Result, TextError};

/// Sets every k-th document aside, for a corpus without its own validation file.
///
/// A document is held out if the sum of its own index and its file's index (in the corpus's order) is a
/// multiple of `every`. This depends only on the document's place, and works even if each file contains a
/// single document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldOut {
    /// One in this many documents is held out.
    pub every: NonZeroU64,
    /// The part to read.
    pub split: Split,
}

/// A part of the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// All but the held-out documents.
    Train,
    /// The held-out documents.
    HeldOut,
}

impl HoldOut {
    /// Whether the part includes a document, given its place in the corpus.
    pub fn contains(&self, file: usize, document: u64) -> bool {
        let held_out = document.wrapping_add(file as u64).is_multiple_of(self.every.get());
        held_out == (self.split == Split::HeldOut)
    }
}

/// A document's position in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Index into the epoch's order of files.
    pub file: usize,
    /// Index in the file, counting all documents.
    pub document: u64,
    /// The number of documents that this epoch used before this one.
    pub used: u64,
}

/// The documents of one epoch, starting at any of them.
pub(super) struct EpochDocuments<'a> {
    corpus: &'a Corpus,
    order: Vec<usize>,
    hold_out: Option<HoldOut>,
    limit: Option<u64>,
    place: Place,
    open: Option<Documents>,
}

impl<'a> EpochDocuments<'a> {
    /// `order` lists the corpus's files.
    pub fn new(
        corpus: &'a Corpus,
        order: Vec<usize>,
        hold_out: Option<HoldOut>,
        limit: Option<u64>,
        from: Place,
    ) -> Result<Self> {
        if from.file > order.len() {
            return Err(TextError::Position {
                position: format!("file {}", from.file),
                reason: format!("there are {} files", order.len()),
            });
        }
        Ok(Self { corpus, order, hold_out, limit, place: from, open: None })
    }

    fn next_document(&mut self) -> Result<Option<(Place, Document)>> {
        loop {
            if self.limit.is_some_and(|limit| self.place.used >= limit) {
                return Ok(None);
            }
            let Some(&file) = self.order.get(self.place.file) else { return Ok(None) };
            if self.open.is_none() {
                self.open = self.corpus.documents(file, self.place.document)?;
                self.order.get(self.place.file + 1).into_iter().for_each(|next| self.corpus.expect(*next));
            }
            let Some(document) = self.open.as_mut().and_then(Iterator::next).transpose()? else {
                self.open = None;
                self.place = Place { file: self.place.file + 1, document: 0, used: self.place.used };
                continue;
            };
            let place = self.place;
            self.place.document += 1;
            if self.hold_out.is_none_or(|hold_out| hold_out.contains(file, place.document)) {
                self.place.used = self.place.used.saturating_add(1);
                return Ok(Some((place, document)));
            }
        }
    }
}

impl Iterator for EpochDocuments<'_> {
    type Item = Result<(Place, Document)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_document().transpose()
    }
}
