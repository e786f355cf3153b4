//! What stages will read: whether it is there, and whether a model is evaluated on what it was trained on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use t5_model::text::{Content, Corpus, HoldOut};

use crate::source::corpus;
use crate::stage::text::Reading;
use crate::stage::{Read as ReadText, TextFile};

/// Documents that are looked at to find one of a part of a text.
const MOST: u64 = 100_000;

/// Texts that have been found, by their names in a recipe.
#[derive(Default)]
pub struct Texts {
    /// `None` for those that cannot be read.
    found: BTreeMap<Name, Option<Found>>,
    /// Parts without a document.
    empty: Vec<(Name, Option<HoldOut>)>,
}

/// A text's name in a recipe, and the field that holds it.
type Name = (Vec<String>, String);
/// A text and its files.
type Found = (Corpus, Arc<[TextFile]>);

impl Texts {
    /// Finds a text, and at least one document of the part that is read. What is wrong with a text is said
    /// once, however many stages read it; afterwards, `None` is returned.
    pub fn find(&mut self, reading: &Reading<'_>) -> Result<Option<ReadText>> {
        let hold_out = reading.hold_out();
        let Some((corpus, files)) = self.open(reading.text, reading.field)? else { return Ok(None) };
        let part = ((reading.text.to_vec(), reading.field.to_owned()), hold_out);
        if self.empty.contains(&part) {
            return Ok(None);
        }
        if !has_document(&corpus, hold_out.as_ref()).inspect_err(|_| self.empty.push(part.clone()))? {
            self.empty.push(part);
            bail!("there is no document {} in {}", reading.purpose.part(), reading.text.join(", "));
        }
        Ok(Some(ReadText { files, hold_out }))
    }

    fn open(&mut self, text: &[String], field: &str) -> Result<Option<Found>> {
        let name = (text.to_vec(), field.to_owned());
        if let Some(found) = self.found.get(&name) {
            return Ok(found.clone());
        }
        self.found.insert(name.clone(), None);
        let corpus = corpus::open(text, field)?;
        let files = corpus.names().into_iter().map(TextFile::new).collect();
        let found = Some((corpus, files));
        self.found.insert(name, found.clone());
        Ok(found)
    }
}

fn has_document(corpus: &Corpus, hold_out: Option<&HoldOut>) -> Result<bool> {
    // What would have to be fetched is taken to have some.
    if corpus.contents().any(|content| matches!(content, Content::Remote(_))) {
        return Ok(true);
    }
    let mut seen = 0;
    for file in 0..corpus.file_count() {
        let Some(documents) = corpus.documents(file, 0)? else { break };
        for (index, document) in (0..).zip(documents) {
            document?;
            seen += 1;
            if seen >= MOST || hold_out.is_none_or(|part| part.contains(file, index)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A file of which a model sees documents both in training and in evaluation.
pub fn shared<'a>(trained: &'a [ReadText], evaluated: &'a ReadText) -> Option<&'a TextFile> {
    let mut pairs = trained.iter().flat_map(|trained| {
        (0..)
            .zip(trained.files.iter())
            .flat_map(move |own| (0..).zip(evaluated.files.iter()).map(move |other| (trained, own, other)))
    });
    let found = pairs.find(|(trained, (at, own), (other_at, other))| {
        own.is_same(other) && !are_apart(trained.hold_out, evaluated.hold_out, *at, *other_at)
    });
    found.map(|(_, _, (_, other))| other)
}

/// Whether no document of a file, which is the `at`-th of one text and the `other_at`-th of the other, is in
/// both parts.
fn are_apart(trained: Option<HoldOut>, evaluated: Option<HoldOut>, at: u64, other_at: u64) -> bool {
    let (Some(trained), Some(evaluated)) = (trained, evaluated) else { return false };
    let every = trained.every.get();
    evaluated.every.get().is_multiple_of(every) && at.abs_diff(other_at).is_multiple_of(every)
}

impl TextFile {
    fn new(name: String) -> Self {
        let path = fs::canonicalize(&name).ok();
        let length = path.as_ref().and_then(|path| Some(fs::metadata(path).ok()?.len()));
        TextFile { name, path, length }
    }

    /// Whether both are one file, or a copy of it.
    fn is_same(&self, other: &TextFile) -> bool {
        match (&self.path, &other.path) {
            (Some(own), Some(path)) => {
                own == path || (self.length == other.length && has_same_bytes(own, path).unwrap_or(false))
            }
            _ => self.name == other.name,
        }
    }
}

fn has_same_bytes(one: &Path, other: &Path) -> std::io::Result<bool> {
    let open = |path: &Path| File::open(path).map(|file| BufReader::with_capacity(1 << 16, file).bytes());
    let (mut one, mut other) = (open(one)?, open(other)?);
    loop {
        match (one.next().transpose()?, other.next().transpose()?) {
            (None, None) => return Ok(true),
            (own, its) if own == its => {}
            _ => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use t5_model::text::{HoldOut, Split};

    use super::are_apart;

    fn part(every: u64, split: Split) -> Option<HoldOut> {
        NonZeroU64::new(every).map(|every| HoldOut { every, split })
    }

    /// By the arithmetic, and by looking at every document.
    #[test]
    fn parts_that_share_no_document() {
        for (trained, evaluated) in [(1, 1), (2, 2), (2, 4), (4, 2), (3, 5), (5, 10), (6, 9)] {
            for at in 0..7 {
                let (train, held) = (part(trained, Split::Train), part(evaluated, Split::HeldOut));
                let (train_part, held_part) = (train.expect("a part"), held.expect("a part"));
                let both =
                    (0..10_000).any(|index| train_part.contains(at, index) && held_part.contains(2, index));
                assert_eq!(are_apart(train, held, at as u64, 2), !both, "{trained} {evaluated} {at}");
            }
        }
        assert!(!are_apart(None, part(2, Split::HeldOut), 0, 0));
        assert!(!are_apart(part(2, Split::Train), None, 0, 0));
    }
}
