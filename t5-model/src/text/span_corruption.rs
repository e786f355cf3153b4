//! Span corruption: a chunk of tokens becomes an input with holes and a target that fills them
//! (`span_corruption` of the T5 library; Raffel et al. 2020, Section 3.1.4).

use super::draws::{Draw, permutation};
use super::error::{Result, TextError};
use super::objective::Denoising;
use super::tokenizer::Tokenizer;

/// The maximum chunk length in tokens; anything longer is assumed to be a mistake.
pub(super) const MAX_CHUNK: usize = 1 << 20;

/// Token counts, the same for every chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanLengths {
    /// Raw tokens in a chunk.
    pub tokens: usize,
    /// Tokens of the chunk that are replaced.
    pub noise: usize,
    /// The number of noise spans, which equals that of the spans between them: one sentinel each.
    pub spans: usize,
    /// Kept tokens, sentinels and EOS.
    pub inputs: usize,
    /// Replaced tokens, sentinels and EOS.
    pub targets: usize,
}

impl SpanLengths {
    /// Lengths for a chunk of `tokens` ≥ 2 tokens. Halves round to even, as in Python and numpy. (seqio's
    /// mask rounds in f32, its helper for the lengths in f64; they disagree for a few lengths, such as 190.
    /// Both use f64 here.)
    fn of_chunk(tokens: usize, noise_density: f64, mean_span_length: f64) -> Self {
        let noise = (tokens as f64 * noise_density).round_ties_even() as usize;
        let noise = noise.clamp(1, tokens.saturating_sub(1).max(1));
        let spans = ((noise as f64 / mean_span_length).round_ties_even() as usize).max(1);
        let kept = tokens.saturating_sub(noise);
        Self { tokens, noise, spans, inputs: kept + spans + 1, targets: noise + spans + 1 }
    }

    /// The longest chunk whose input fits into `input_length` tokens (`random_spans_helper`), with a vocabulary of
    /// this many sentinels. With T5's 15 % noise in spans of 3 tokens on average, an input length of 512 takes
    /// chunks of 568 tokens and gives targets of 114.
    ///
    /// # Errors
    /// If parameters are out of range, or the spans do not fit into the input or outnumber the sentinels.
    pub fn new(
        input_length: usize,
        noise_density: f64,
        mean_span_length: f64,
        sentinels: usize,
    ) -> Result<Self> {
        Denoising::Spans { noise_density, mean_span_length }.check()?;
        if input_length < 3 {
            return Err(TextError::InputLength { input_length });
        }
        let of_chunk = |tokens| Self::of_chunk(tokens, noise_density, mean_span_length);
        let mut lengths = of_chunk(input_length - 1);
        loop {
            if lengths.spans > sentinels {
                let (spans, available) = (lengths.spans, sentinels);
                return Err(TextError::TooManySpans { input_length, spans, available });
            }
            if lengths.tokens > MAX_CHUNK {
                return Err(TextError::ChunkTooLong { input_length, limit: MAX_CHUNK });
            }
            let longer = of_chunk(lengths.tokens + 1);
            if longer.inputs > input_length {
                break;
            }
            lengths = longer;
        }
        // T5's special case, so that targets are no longer than inputs when half of the tokens are noise.
        if noise_density == 0.5 && lengths.targets > lengths.inputs {
            lengths = of_chunk(lengths.tokens - 1);
        }
        let kept = lengths.tokens - lengths.noise;
        if lengths.spans > kept {
            return Err(TextError::SpansDoNotFit { spans: lengths.spans, kept, tokens: lengths.tokens });
        }
        Ok(lengths)
    }
}

/// Identifies a chunk: together with the seed, it determines the corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkKey {
    /// The seed of the run.
    pub seed: u64,
    /// Passes over the corpus before the current one.
    pub epoch: u64,
    /// The chunk's number in its epoch, before shuffling.
    pub chunk: u64,
}

/// Turns chunks of [`SpanLengths::tokens`] tokens into inputs and targets.
///
/// Each noise span is replaced by a sentinel; the target lists each sentinel with the tokens it stands for.
/// Sentinels descend from `<extra_id_0>`, the target does not end with one, and EOS ends both.
#[derive(Clone, Debug)]
pub struct SpanCorruption {
    lengths: SpanLengths,
    /// `<extra_id_0>` first.
    sentinels: Vec<i32>,
    eos: i32,
}

impl SpanCorruption {
    /// For inputs of at most `input_length` tokens: see [`SpanLengths::new`].
    ///
    /// # Errors
    /// If parameters are out of range, or the spans do not fit into the input or outnumber the sentinels.
    pub fn new(
        input_length: usize,
        noise_density: f64,
        mean_span_length: f64,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let mut sentinels = tokenizer.sentinels().to_vec();
        let lengths = SpanLengths::new(input_length, noise_density, mean_span_length, sentinels.len())?;
        sentinels.truncate(lengths.spans);
        Ok(Self { lengths, sentinels, eos: tokenizer.eos_id() })
    }

    /// Lengths of chunks, inputs and targets.
    pub fn lengths(&self) -> SpanLengths {
        self.lengths
    }

    /// Appends the chunk's input to `inputs` and its target to `targets`, including EOS.
    ///
    /// # Errors
    /// If the chunk does not have [`SpanLengths::tokens`] tokens.
    pub fn corrupt(
        &self,
        chunk: &[i32],
        key: ChunkKey,
        inputs: &mut Vec<i32>,
        targets: &mut Vec<i32>,
    ) -> Result<()> {
        let SpanLengths { tokens, noise, spans, .. } = self.lengths;
        if chunk.len() != tokens {
            return Err(TextError::ChunkLength { actual: chunk.len(), expected: tokens });
        }
        self.replace(chunk, &random_spans_noise_mask(tokens, noise, spans, key), inputs, targets);
        Ok(())
    }

    /// Appends the input in which spans of noise are replaced, and the target that says by what
    /// (`noise_span_to_unique_sentinel`, `nonnoise_span_to_unique_sentinel`). The mask has no more spans than
    /// [`SpanLengths::spans`].
    pub fn replace(&self, chunk: &[i32], mask: &[bool], inputs: &mut Vec<i32>, targets: &mut Vec<i32>) {
        let mut sentinels = self.sentinels.iter();
        let mut previous = false;
        for (&token, &noise) in chunk.iter().zip(mask) {
            if noise && !previous {
                inputs.extend(sentinels.as_slice().first());
                targets.extend(sentinels.next());
            }
            (if noise { &mut *targets } else { &mut *inputs }).push(token);
            previous = noise;
        }
        inputs.push(self.eos);
        targets.push(self.eos);
    }
}

/// Which of `length` tokens are noise: `spans` noise spans with `noise` tokens in total, alternating with as
/// many kept spans. A kept span comes first and a noise span last; otherwise all such masks are equally
/// likely (`random_spans_noise_mask`). Requires 1 ≤ `spans` ≤ `noise` and `spans` ≤ `length - noise`;
/// otherwise the mask has fewer spans.
pub fn random_spans_noise_mask(length: usize, noise: usize, spans: usize, key: ChunkKey) -> Vec<bool> {
    let kept = length.saturating_sub(noise);
    let noise_lengths = random_segmentation(noise.min(length), spans, key, Draw::NoiseSpans);
    let kept_lengths = random_segmentation(kept, spans, key, Draw::KeptSpans);
    let mut mask = Vec::with_capacity(length);
    for (kept, noise) in kept_lengths.into_iter().zip(noise_lengths) {
        mask.resize(mask.len() + kept, false);
        mask.resize(mask.len() + noise, true);
    }
    mask
}

/// Lengths of `segments` non-empty segments that add up to `items`; all such partitions are equally likely.
fn random_segmentation(items: usize, segments: usize, key: ChunkKey, draw: Draw) -> Vec<usize> {
    // The first `segments - 1` entries of a permutation of all items but the last mark where segments end.
    let mut ends = permutation(items.saturating_sub(1), draw, key.seed, key.epoch, key.chunk);
    ends.truncate(segments.saturating_sub(1));
    ends.sort_unstable();
    let ends = ends.into_iter().map(|end| end + 1).chain([items]);
    ends.scan(0, |start, end| Some(end - std::mem::replace(start, end))).collect()
}
