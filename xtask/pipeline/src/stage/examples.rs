//! Held-out examples, and what a trained model fills their holes with.

use std::path::Path;

use anyhow::{Context as _, Result};
use fusion_core::atomic::write_own_file;
use serde::{Deserialize, Serialize};
use t5_model::text::Tokenizer;
use t5_model::{Decoding, IGNORED_LABEL, Rules, Session};

use super::text::OpenText;

/// Where a training keeps its examples.
pub const FILE: &str = "examples.json";

/// The number of examples, the first of the held-out text.
const COUNT: usize = 8;

/// In place of what follows a prefix, of which only so many tokens are shown.
const CONTINUATION: (&str, usize) = ("<extra_id_0>", 12);

/// The examples of a training. Trainings with one text and one tokenizer have the same inputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Examples {
    /// In the text's order.
    pub examples: Vec<Example>,
}

/// A text with holes, which a model has filled greedily. What follows a prefix is a hole at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The text, with a sentinel such as `<extra_id_0>` in place of each hole.
    pub input: String,
    /// The holes, in order.
    pub spans: Vec<Span>,
}

/// A hole in a text. Words begin with the space before them; a span without one continues a word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// What stands in the input in its place.
    pub sentinel: String,
    /// What stood there.
    pub expected: String,
    /// What the model says; `None` if its answer ends before it, or leaves the hole out.
    pub filled: Option<String>,
}

impl Examples {
    /// Fills the holes of the first held-out examples.
    ///
    /// # Errors
    /// If the text cannot be read, or the device fails.
    pub fn fill(session: &mut dyn Session, text: &OpenText) -> Result<Self> {
        let tokenizer = text.tokenizer();
        let mut examples = Vec::with_capacity(COUNT);
        for batch in text.held_out(COUNT, COUNT)? {
            let how = Decoding {
                max_new_tokens: Some(batch.target_length.max(1)),
                rules: Rules { ends: Some(vec![tokenizer.eos_id()]), ..Rules::default() },
                ..Decoding::default()
            };
            let answers = session.answers(&batch, &how, 0)?;
            let inputs = batch.input_ids.chunks(batch.input_length.max(1));
            let targets = batch.labels.chunks(batch.target_length.max(1));
            for ((input, target), answers) in inputs.zip(targets).zip(&answers) {
                let answer = answers.first().map_or(&[][..], |answer| &answer.tokens);
                examples.push(Example::new(tokenizer, input, target, answer)?);
            }
        }
        Ok(Examples { examples })
    }

    /// Those of a training's directory; none if it has not finished.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(Examples::default());
        }
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes them into a training's directory.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        Ok(write_own_file(directory, FILE, &serde_json::to_vec_pretty(self)?)?)
    }
}

impl Example {
    fn new(tokenizer: &Tokenizer, input: &[i32], target: &[i32], answer: &[i32]) -> Result<Self> {
        let said = tokenizer.spans(answer);
        let target: Vec<i32> = target.iter().copied().filter(|id| *id != IGNORED_LABEL).collect();
        if tokenizer.spans(&target).is_empty() {
            return Self::continued(tokenizer, input, &target, answer);
        }
        let shown = |sentinel: i32, span: &[i32]| -> Result<String> {
            let whole = tokenizer.decode_with_sentinels(&[&[sentinel], span].concat())?;
            let own = tokenizer.decode_with_sentinels(&[sentinel])?;
            Ok(whole.strip_prefix(&own).unwrap_or(&whole).to_owned())
        };
        let span = |(sentinel, expected): (i32, &[i32])| -> Result<Span> {
            let filled = said.iter().find(|(own, _)| *own == sentinel);
            Ok(Span {
                sentinel: tokenizer.decode_with_sentinels(&[sentinel])?,
                expected: shown(sentinel, expected)?,
                filled: filled.map(|(_, span)| shown(sentinel, span)).transpose()?,
            })
        };
        Ok(Example {
            input: tokenizer.decode_with_sentinels(input)?,
            spans: tokenizer.spans(&target).into_iter().map(span).collect::<Result<_>>()?,
        })
    }

    /// Of a prefix, how it goes on.
    fn continued(tokenizer: &Tokenizer, input: &[i32], target: &[i32], answer: &[i32]) -> Result<Self> {
        let (sentinel, tokens) = CONTINUATION;
        let start = |ids: &[i32]| tokenizer.decode_with_sentinels(&ids[..ids.len().min(tokens)]);
        let span = Span {
            sentinel: sentinel.to_owned(),
            expected: start(target)?,
            filled: (!answer.is_empty()).then(|| start(answer)).transpose()?,
        };
        let input = tokenizer.decode_with_sentinels(input)? + sentinel;
        Ok(Example { input, spans: vec![span] })
    }
}
