//! What a model reads in one step.

use std::ops::Range;

use crate::{Error, Result, T5Config};

/// A label that counts neither in the loss nor in the accuracy.
pub const IGNORED_LABEL: i32 = -100;

/// Token ids of `size` examples, padded to a common length, row by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The number of examples.
    pub size: usize,
    /// Tokens of an input, padding included.
    pub input_length: usize,
    /// Tokens of a target, padding included; 0 for a batch without targets.
    pub target_length: usize,
    /// `[size, input_length]`, padded with the pad token.
    pub input_ids: Vec<i32>,
    /// `[size, input_length]`, 1 for a token, 0 for padding.
    pub attention_mask: Vec<u8>,
    /// `[size, target_length]`, padded with [`IGNORED_LABEL`].
    pub labels: Vec<i32>,
}

impl Batch {
    /// A batch of examples `(input, target)` of any lengths, padded.
    pub fn padded<'a>(examples: impl IntoIterator<Item = (&'a [i32], &'a [i32])>, pad: i32) -> Batch {
        let examples: Vec<_> = examples.into_iter().collect();
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        let input_length = longest(&mut examples.iter().map(|(input, _)| input.len()));
        let target_length = longest(&mut examples.iter().map(|(_, target)| target.len()));
        let mut batch = Batch { size: examples.len(), input_length, target_length, ..Batch::default() };
        for (input, target) in examples {
            let padding = input_length - input.len();
            batch.input_ids.extend(input.iter().copied().chain(std::iter::repeat_n(pad, padding)));
            batch.attention_mask.extend(std::iter::repeat_n(1, input.len()));
            batch.attention_mask.extend(std::iter::repeat_n(0, padding));
            let padding = std::iter::repeat_n(IGNORED_LABEL, target_length - target.len());
            batch.labels.extend(target.iter().copied().chain(padding));
        }
        batch
    }

    /// Some of the examples.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn rows(&self, rows: Range<usize>) -> Batch {
        let of = |length: usize| rows.start * length..rows.end * length;
        Batch {
            size: rows.len(),
            input_length: self.input_length,
            target_length: self.target_length,
            input_ids: self.input_ids[of(self.input_length)].to_vec(),
            attention_mask: self.attention_mask[of(self.input_length)].to_vec(),
            labels: self.labels[of(self.target_length)].to_vec(),
        }
    }

    /// The same targets, each with the input of another row, whose number is given for each.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn with_inputs_of(&self, rows: &[usize]) -> Batch {
        let mut batch = self.clone();
        for (row, from) in rows.iter().enumerate() {
            let [to, from] = [row, *from].map(|row| row * self.input_length..(row + 1) * self.input_length);
            batch.input_ids[to.clone()].copy_from_slice(&self.input_ids[from.clone()]);
            batch.attention_mask[to].copy_from_slice(&self.attention_mask[from]);
        }
        batch
    }

    /// The number of labels that count.
    pub fn target_tokens(&self) -> u64 {
        self.labels.iter().filter(|label| **label != IGNORED_LABEL).count() as u64
    }

    /// The number of inputs that are not padding.
    pub fn input_tokens(&self) -> u64 {
        self.attention_mask.iter().filter(|mask| **mask != 0).count() as u64
    }

    /// Checks sizes and ids against a model. A batch without targets (`target_length` 0) serves only for generation.
    ///
    /// # Errors
    /// [`Error::Batch`] says what does not fit.
    pub fn validate(&self, config: &T5Config) -> Result<()> {
        let fail = |problem: String| Err(Error::Batch(problem));
        if self.size == 0 || self.input_length == 0 {
            return fail(format!("it is empty ({} examples of length {})", self.size, self.input_length));
        }
        let inputs = self.size.checked_mul(self.input_length);
        let targets = self.size.checked_mul(self.target_length);
        for (name, length, expected) in [
            ("input_ids", self.input_ids.len(), inputs),
            ("attention_mask", self.attention_mask.len(), inputs),
            ("labels", self.labels.len(), targets),
        ] {
            if Some(length) != expected {
                return fail(format!("{name} has {length} elements where its size calls for {expected:?}"));
            }
        }
        let unknown = |id: i32| usize::try_from(id).map_or(true, |id| id >= config.vocab_size);
        let unknown_label = |id: i32| id != IGNORED_LABEL && unknown(id);
        let input = self.input_ids.iter().position(|id| unknown(*id));
        let label = self.labels.iter().position(|id| unknown_label(*id));
        for (name, ids, length, outside) in [
            ("input_ids", &self.input_ids, self.input_length, input),
            ("labels", &self.labels, self.target_length, label),
        ] {
            if let Some(at) = outside {
                return fail(format!(
                    "{name}[{}, {}] is {}, but the vocabulary has ids 0 to {}",
                    at / length,
                    at % length,
                    ids[at],
                    config.vocab_size - 1
                ));
            }
        }
        if let Some(row) = self.attention_mask.chunks(self.input_length).position(|row| !row.contains(&1)) {
            return fail(format!("row {row} of the attention mask hides every token"));
        }
        Ok(())
    }
}

#[cfg(feature = "compute")]
impl Batch {
    /// The mask, if anything is padded.
    pub(crate) fn padding(&self) -> Option<&[u8]> {
        self.attention_mask.contains(&0).then_some(self.attention_mask.as_slice())
    }

    /// The decoder's input: the start token, then the labels without the last; ignored labels become the pad token.
    pub(crate) fn decoder_input_ids(&self, config: &T5Config) -> Vec<i32> {
        let mut ids = Vec::with_capacity(self.labels.len());
        for row in self.labels.chunks(self.target_length.max(1)) {
            let shifted = row.iter().take(row.len() - 1);
            let visible =
                shifted.map(|&label| if label == IGNORED_LABEL { config.pad_token_id } else { label });
            ids.push(config.decoder_start_token_id);
            ids.extend(visible);
        }
        ids
    }
}
