//! Evaluating a model on held-out text.

use std::path::Path;

use anyhow::{Context, Result};
use fusion_core::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};
use t5_model::T5Config;
use t5_model::text::Tokenizer;

use super::Source;
use super::text::Data;
use crate::Compute;
use crate::checkpoint::tokenizer_for;

/// A model, and the text it is evaluated on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluate {
    pub model: Source,
    pub data: Data,
    pub batch_size: usize,
    /// At most so many batches.
    pub batches: u64,
}

/// How well a model predicts held-out tokens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct TextScore {
    /// Mean cross-entropy of a target token in nats.
    pub loss: f64,
    /// Share of the target tokens predicted right.
    pub accuracy: f64,
    /// Target tokens.
    pub tokens: u64,
}

impl Evaluate {
    /// `tokenizer` lies in the model's directory if not given.
    pub fn run(&self, model: &Path, tokenizer: Option<&Path>, compute: &Compute) -> Result<TextScore> {
        let checkpoint = Checkpoint::open(model)?;
        let config = T5Config::of_checkpoint(&checkpoint)?;
        let tokenizer: Tokenizer = tokenizer_for(model, &config, tokenizer)?;
        let text = self.data.open(tokenizer)?;
        let mut session = compute.open_checkpoint(&checkpoint)?;
        let batches = text.evaluation(self.batch_size)?;
        let evaluation = t5_model::train::evaluate(session.as_mut(), batches, self.batches)
            .with_context(|| format!("cannot evaluate {}", model.display()))?;
        let (loss, accuracy, tokens) = (evaluation.loss(), evaluation.accuracy(), evaluation.tokens);
        Ok(TextScore { loss, accuracy, tokens })
    }
}
