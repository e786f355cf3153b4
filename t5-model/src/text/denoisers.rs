//! Objectives applied to text: chunks of tokens become inputs and targets.

use super::draws::{Draw, uniform};
use super::error::{Result, TextError};
use super::objective::{Denoising, Objective, Part};
use super::prefix_lm::PrefixLm;
use super::span_corruption::{ChunkKey, SpanCorruption, SpanLengths};
use super::tokenizer::Tokenizer;

/// Token counts of an objective's examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExampleLengths {
    /// Of the longest input.
    pub inputs: usize,
    /// Of the longest target.
    pub targets: usize,
    /// Of input and target together, on average.
    pub mean: f64,
}

/// What a target token is to its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetToken {
    /// A sentinel or EOS, which says that the span before it has ended.
    Sentinel,
    /// The first token of a span, or of what follows a prefix: the decoder has read nothing of it.
    First,
    /// A token that continues it.
    Rest,
}

/// The denoisers of an objective, for inputs of a length and a tokenizer. Which of them a chunk gets is a function of
/// its key, and so is what becomes of it.
///
/// As in UL2's own code, each denoiser takes chunks as long as make an input of the full length: see
/// [`SpanLengths`] and [`PrefixLm::new`].
#[derive(Clone, Debug)]
pub struct Denoisers {
    denoisers: Vec<Denoiser>,
    /// The sum of all rates.
    rates: f64,
    /// Of the denoiser with the most.
    sentinels: Vec<i32>,
    eos: i32,
    pad: i32,
}

#[derive(Clone, Debug)]
struct Denoiser {
    how: How,
    rate: f64,
    /// What its inputs begin with.
    mode: Vec<i32>,
    name: String,
}

#[derive(Clone, Debug)]
enum How {
    Spans(SpanCorruption),
    Prefix(PrefixLm),
}

impl Denoisers {
    /// For inputs of at most `input_length` tokens.
    ///
    /// # Errors
    /// If the objective's settings are out of range or do not fit into the input, spans outnumber the sentinels, or
    /// the vocabulary lacks a mode.
    pub fn new(objective: &Objective, input_length: usize, tokenizer: &Tokenizer) -> Result<Self> {
        objective.check()?;
        let denoiser = |part: &Part| -> Result<Denoiser> {
            let name = part.to_string();
            let mode = part.mode.as_deref().map_or(Ok(Vec::new()), |mode| mode_ids(mode, tokenizer))?;
            // What is left of the input.
            let length = input_length.saturating_sub(mode.len());
            if length < 3 && !mode.is_empty() {
                let problem = format!("its {} tokens leave too few of an input's {input_length}", mode.len());
                return Err(TextError::Mode { mode: part.mode.clone().unwrap_or_default(), problem });
            }
            let how = match part.denoising {
                Denoising::Spans { noise_density, mean_span_length } => {
                    SpanCorruption::new(length, noise_density, mean_span_length, tokenizer).map(How::Spans)
                }
                Denoising::Prefix { noise_density } => PrefixLm::new(length, noise_density).map(How::Prefix),
            };
            Ok(Denoiser { how: how?, rate: part.rate, mode, name })
        };
        let parts = objective.parts();
        let named = |part: &Part| denoiser(part).map_err(|error| in_mixture(error, part, parts.len()));
        Ok(Self::of(parts.iter().map(named).collect::<Result<_>>()?, tokenizer))
    }

    fn of(denoisers: Vec<Denoiser>, tokenizer: &Tokenizer) -> Self {
        let sentinels = denoisers.iter().map(Denoiser::sentinels).max().unwrap_or(0);
        Denoisers {
            rates: denoisers.iter().map(|denoiser| denoiser.rate).sum(),
            sentinels: tokenizer.sentinels()[..sentinels].to_vec(),
            eos: tokenizer.eos_id(),
            pad: tokenizer.pad_id(),
            denoisers,
        }
    }

    /// Lengths of an objective's examples with a vocabulary that has this many sentinels. Modes are taken to need no
    /// room.
    ///
    /// # Errors
    /// The same as those of [`Denoisers::new`], except for modes.
    pub fn lengths(objective: &Objective, input_length: usize, sentinels: usize) -> Result<ExampleLengths> {
        objective.check()?;
        let parts = objective.parts();
        let rates: f64 = parts.iter().map(|part| part.rate).sum();
        let mut lengths = ExampleLengths { inputs: 0, targets: 0, mean: 0.0 };
        for part in &parts {
            let own = lengths_of(part.denoising, input_length, sentinels);
            let own = own.map_err(|error| in_mixture(error, part, parts.len()))?;
            lengths.inputs = lengths.inputs.max(own.inputs);
            lengths.targets = lengths.targets.max(own.targets);
            lengths.mean += own.mean * (part.rate / rates);
        }
        Ok(lengths)
    }

    /// The number of denoisers.
    pub fn count(&self) -> usize {
        self.denoisers.len()
    }

    /// A denoiser's mode and settings, in words.
    pub fn name(&self, denoiser: usize) -> &str {
        &self.denoisers[denoiser].name
    }

    /// The token that inputs are padded with.
    pub fn pad_id(&self) -> i32 {
        self.pad
    }

    /// The denoiser that a chunk gets.
    pub fn draw(&self, key: ChunkKey) -> usize {
        let last = self.denoisers.len() - 1;
        if last == 0 {
            return 0;
        }
        let drawn = self.rates * uniform(Draw::Denoiser, key.seed, key.epoch, key.chunk);
        let ends = self.denoisers.iter().scan(0.0, |end, denoiser| {
            *end += denoiser.rate;
            Some(*end)
        });
        ends.take_while(|end| *end <= drawn).count().min(last)
    }

    /// Tokens in the chunks of a denoiser.
    pub fn chunk_length(&self, denoiser: usize) -> usize {
        match &self.denoisers[denoiser].how {
            How::Spans(spans) => spans.lengths().tokens,
            How::Prefix(prefix) => prefix.chunk_length(),
        }
    }

    /// Appends the chunk's input to `inputs` and its target to `targets`, including EOS.
    ///
    /// # Errors
    /// If the chunk does not have the length of the denoiser's chunks.
    pub fn apply(
        &self,
        denoiser: usize,
        chunk: &[i32],
        key: ChunkKey,
        inputs: &mut Vec<i32>,
        targets: &mut Vec<i32>,
    ) -> Result<()> {
        let Denoiser { how, mode, .. } = &self.denoisers[denoiser];
        inputs.extend(mode);
        match how {
            How::Spans(spans) => spans.corrupt(chunk, key, inputs, targets),
            How::Prefix(prefix) => {
                let expected = prefix.chunk_length();
                if chunk.len() != expected {
                    return Err(TextError::ChunkLength { actual: chunk.len(), expected });
                }
                let (start, following) = chunk.split_at(expected - prefix.following(key));
                for (part, ids) in [(start, inputs), (following, targets)] {
                    ids.extend(part);
                    ids.push(self.eos);
                }
                Ok(())
            }
        }
    }

    /// The chunk that an example was made from. Padding, and labels that do not count, are left out.
    pub fn chunk_of(
        &self,
        denoiser: usize,
        input: &[i32],
        labels: &[i32],
        tokenizer: &Tokenizer,
    ) -> Vec<i32> {
        let Denoiser { how, mode, .. } = &self.denoisers[denoiser];
        let input = input.get(mode.len()..).unwrap_or_default();
        let mut chunk = tokenizer.fill(input, labels);
        if let How::Prefix(_) = how {
            chunk.extend(labels.iter().filter(|label| **label >= 0 && **label != self.eos));
        }
        chunk
    }

    /// What each label of an example is; `None` for one that does not count.
    pub fn target_tokens(&self, labels: &[i32]) -> impl Iterator<Item = Option<TargetToken>> {
        let is_sentinel = |label: &i32| *label == self.eos || self.sentinels.contains(label);
        labels.iter().enumerate().map(move |(index, label)| match label {
            ..0 => None,
            _ if is_sentinel(label) => Some(TargetToken::Sentinel),
            _ if index == 0 || is_sentinel(&labels[index - 1]) => Some(TargetToken::First),
            _ => Some(TargetToken::Rest),
        })
    }
}

impl Denoiser {
    /// The number of sentinels that it uses.
    fn sentinels(&self) -> usize {
        match &self.how {
            How::Spans(spans) => spans.lengths().spans,
            How::Prefix(_) => 0,
        }
    }
}

fn lengths_of(denoising: Denoising, input_length: usize, sentinels: usize) -> Result<ExampleLengths> {
    match denoising {
        Denoising::Spans { noise_density, mean_span_length } => {
            let lengths = SpanLengths::new(input_length, noise_density, mean_span_length, sentinels)?;
            let SpanLengths { inputs, targets, .. } = lengths;
            Ok(ExampleLengths { inputs, targets, mean: (inputs + targets) as f64 })
        }
        Denoising::Prefix { noise_density } => {
            let prefix = PrefixLm::new(input_length, noise_density)?;
            let (inputs, targets) = (prefix.longest_input(), prefix.longest_target());
            Ok(ExampleLengths { inputs, targets, mean: (prefix.chunk_length() + 2) as f64 })
        }
    }
}

/// The ids of a mode's text.
fn mode_ids(mode: &str, tokenizer: &Tokenizer) -> Result<Vec<i32>> {
    let ids = tokenizer.encode(mode)?;
    let fail = |problem: &str| Err(TextError::Mode { mode: mode.to_owned(), problem: problem.to_owned() });
    match ids.iter().find(|id| tokenizer.is_control(**id) || **id == tokenizer.unk_id()) {
        Some(id) if *id == tokenizer.unk_id() => fail("the vocabulary has no tokens for it"),
        Some(_) => fail("it is a sentinel, or ends the text"),
        None if ids.is_empty() => fail("the vocabulary has no tokens for it"),
        None => Ok(ids),
    }
}

/// Of several denoisers, an error names the one it is about.
fn in_mixture(error: TextError, part: &Part, parts: usize) -> TextError {
    match error {
        error if parts == 1 => error,
        error => TextError::Denoiser { denoiser: part.to_string(), problem: error.to_string() },
    }
}
