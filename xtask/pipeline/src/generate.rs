//! Answers texts with a model.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use t5_model::text::{self, Tokenizer};
use t5_model::{Batch, Decoding, GenerationSettings, Session, T5Config};

use crate::checkpoint::{generation_warnings, tokenizer_for};
use crate::source::corpus;
use crate::{Compute, Warning};

/// A model that answers texts.
pub struct Generator {
    tokenizer: Tokenizer,
    session: Box<dyn Session>,
    how: Decoding,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// Inputs answered so far, which draws depend on.
    answered: u64,
}

/// An answer to an input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Said {
    /// The answer, with sentinels as transformers shows them.
    pub output: String,
    /// The input, with what the answer says of each hole in its place.
    pub filled: String,
    /// The answer's tokens, without padding and the end of the sequence.
    pub tokens: Vec<i32>,
    /// The log of the answer's probability under the model, in nats.
    pub log_probability: f64,
    /// What beam search ranks by; the log probability otherwise.
    pub score: f64,
}

impl Generator {
    /// Loads a checkpoint and its tokenizer, or the one given. What the model's own settings say of where
    /// answers begin and end, of their length, and of the tokens they may have, is followed unless `how` says
    /// otherwise; what is not, is among the [`warnings`](Generator::warnings).
    ///
    /// # Errors
    /// If the settings cannot be used, or the model cannot be loaded.
    pub fn open(
        model: &Path,
        tokenizer: Option<&Path>,
        mut how: Decoding,
        compute: &Compute,
    ) -> Result<Self> {
        let (checkpoint, config) = T5Config::open(model)?;
        let tokenizer = tokenizer_for(model, &config, tokenizer)?;
        let settings = GenerationSettings::of(model, &config)?;
        settings.complete(&mut how, tokenizer.eos_id());
        how.check()?;
        let warnings = generation_warnings(&settings, &tokenizer, &how);
        let session = compute.open_checkpoint(&checkpoint)?;
        Ok(Generator { tokenizer, session, how, warnings, answered: 0 })
    }

    /// Answers a batch of inputs: to each, as many answers as the settings ask for. An input's answers do not
    /// depend on the batch that it is in, only on how many inputs came before.
    ///
    /// # Errors
    /// If the device fails.
    pub fn answer(&mut self, texts: &[String]) -> Result<Vec<Vec<Said>>> {
        let Generator { tokenizer, session, how, answered, .. } = self;
        let mut inputs = tokenizer.encode_batch(texts)?;
        inputs.iter_mut().for_each(|input| input.push(tokenizer.eos_id()));
        let rows = inputs.iter().map(|input| (input.as_slice(), [].as_slice()));
        let batch = Batch::padded(rows, tokenizer.pad_id());
        let answers = session.answers(&batch, how, *answered)?;
        *answered += texts.len() as u64;
        let said = |input: &[i32], answer: t5_model::Answer| -> Result<Said> {
            Ok(Said {
                output: tokenizer.decode_with_sentinels(&answer.tokens)?,
                filled: tokenizer.decode_with_sentinels(&tokenizer.fill(input, &answer.tokens))?,
                tokens: answer.tokens,
                log_probability: answer.log_probability,
                score: answer.score,
            })
        };
        let rows = inputs.iter().zip(answers);
        rows.map(|(input, answers)| answers.into_iter().map(|answer| said(input, answer)).collect()).collect()
    }
}

/// The inputs in a file: the documents of a JSON file or a table, in the field or column of that name, and the
/// lines of any other, which may be compressed as `.gz` or `.zst`, too.
///
/// # Errors
/// If the file cannot be read, with the line.
pub fn inputs(file: &Path, field: &str) -> Result<Vec<String>> {
    let name = file.to_str().with_context(|| format!("the path {} is not UTF-8", file.display()))?;
    let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    if [".json", ".jsonl", ".csv", ".tsv", ".parquet"].iter().any(|extension| plain.ends_with(extension)) {
        let documents = corpus::open(&[name.to_owned()], field)?.documents(0, 0)?;
        let texts = documents.into_iter().flatten().map(|document| document?.into_text());
        return Ok(texts.collect::<text::Result<_>>()?);
    }
    Ok(text::lines(file)?.collect::<text::Result<_>>()?)
}
