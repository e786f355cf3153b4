//! Evaluates a model on held-out text.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use fusion_core::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use t5_model::T5Config;
use toml::Spanned;

use super::text::Data;
use super::{Finished, Gives, Input, Keys, Kind, Row, Shown, Work};
use crate::checkpoint::tokenizer_for;
use crate::numbers::count;
use crate::{Compute, Watch};

/// A model, and the text to evaluate it on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluate {
    /// The checkpoint to evaluate.
    pub model: Input,
    /// Only the held-out text is read.
    pub data: Data,
    /// Examples per batch.
    pub batch_size: usize,
    /// The maximum number of batches.
    pub batches: u64,
}

/// How well a model predicts held-out tokens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct TextScore {
    /// Mean cross-entropy per target token in nats.
    pub loss: f64,
    /// Share of target tokens predicted correctly.
    pub accuracy: f64,
    /// The number of target tokens.
    pub tokens: u64,
}

/// `evaluate`, whose result is a [`TextScore`].
pub const KIND: Kind =
    Kind { name: "evaluate", gives: None, output: "evaluation.json", table: None, read, show, arm: None };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnKeys {
    model: Spanned<String>,
    #[serde(default = "usual_batch_size")]
    batch_size: usize,
    #[serde(default = "usual_batches")]
    batches: u64,
}

fn usual_batch_size() -> usize {
    32
}

fn usual_batches() -> u64 {
    500
}

fn read(keys: &mut Keys<'_>) -> Result<Arc<dyn Work>> {
    let data = keys.data()?;
    let data = keys.tokenized(data)?;
    let OwnKeys { model, batch_size, batches } = keys.rest()?;
    let model = keys.input(model, Gives::Model)?;
    Ok(Arc::new(Evaluate { model, data, batch_size, batches }))
}

fn show(finished: &Finished<'_>) -> Result<Shown> {
    let score: TextScore = finished.result()?;
    let row = Row {
        title: "Evaluations",
        header: &["model", "loss", "accuracy, %", "tokens"],
        cells: vec![
            finished.inputs.first().cloned().unwrap_or_default(),
            format!("{:.4}", score.loss),
            format!("{:.2}", 100.0 * score.accuracy),
            count(score.tokens as f64),
        ],
    };
    Ok(Shown { row: Some(row), ..Shown::parameters(finished)? })
}

impl Work for Evaluate {
    fn inputs(&self) -> Vec<&Input> {
        vec![&self.model, &self.data.tokenizer]
    }

    fn run(&self, context: &super::Context<'_>) -> Result<Value> {
        let tokenizer = context.locate(&self.data.tokenizer)?;
        let score = self.score(&context.locate(&self.model)?, &tokenizer, context.compute, context.watch)?;
        context.write_json(&score)
    }
}

impl Evaluate {
    /// Evaluates the model, whose files were found.
    pub fn score(
        &self,
        model: &Path,
        tokenizer: &Path,
        compute: &Compute,
        watch: &dyn Watch,
    ) -> Result<TextScore> {
        let checkpoint = Checkpoint::open(model)?;
        let config = T5Config::of_checkpoint(&checkpoint)?;
        let tokenizer = tokenizer_for(model, &config, Some(tokenizer))?;
        let text = self.data.open(tokenizer, watch)?;
        let mut session = compute.open_checkpoint(&checkpoint)?;
        let batches = text.evaluation(self.batch_size)?;
        let evaluation = t5_model::train::evaluate(session.as_mut(), batches, self.batches)
            .with_context(|| format!("cannot evaluate {}", model.display()))?;
        let (loss, accuracy, tokens) = (evaluation.loss(), evaluation.accuracy(), evaluation.tokens);
        Ok(TextScore { loss, accuracy, tokens })
    }
}
