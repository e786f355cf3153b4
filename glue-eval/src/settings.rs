use serde::{Deserialize, Serialize};
use t5_model::Optimizer;

use crate::error::GlueError;
use crate::files::BadRows;

/// How a model is fine-tuned on one task. The defaults are T5's (Raffel et al. 2020, section 3.1.2): batches of 128
/// for 2^18 steps, Adafactor at a constant 1e-3, dropout 0.1, an evaluation every 5,000 steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FineTuneSettings {
    /// Optimiser updates.
    pub steps: u64,
    /// Examples per update.
    pub batch_size: usize,
    /// Examples on the device at once; gradients add up over a batch's micro-batches.
    pub micro_batch_size: usize,
    pub optimizer: Optimizer,
    pub learning_rate: f64,
    pub dropout: f64,
    pub z_loss: f64,
    /// Limit of the gradient's norm; T5 has none.
    pub clip_norm: Option<f64>,
    /// Tokens of an input with its end token; what is longer is cut before the end token (seqio's
    /// `append_eos_after_trim`).
    pub input_length: usize,
    /// Tokens of a target with its end token, and the most that are generated.
    pub target_length: usize,
    /// Updates between two evaluations on the development sets. The last step is always evaluated.
    pub evaluate_every: u64,
    pub evaluation_batch_size: usize,
    /// Seed of the examples' order and of dropout.
    pub seed: u64,
    /// At most so many training examples, drawn alike for every seed.
    pub max_train_examples: Option<usize>,
    /// At most so many examples of each development set, drawn alike for every seed.
    pub max_eval_examples: Option<usize>,
    /// Leave out and count rows that are no examples, instead of stopping at the first one.
    pub skip_bad_rows: bool,
}

impl Default for FineTuneSettings {
    fn default() -> Self {
        FineTuneSettings {
            steps: 1 << 18,
            batch_size: 128,
            micro_batch_size: 32,
            optimizer: Optimizer::adafactor(),
            learning_rate: 1e-3,
            dropout: 0.1,
            z_loss: 1e-4,
            clip_norm: None,
            input_length: 512,
            target_length: 84,
            evaluate_every: 5_000,
            evaluation_batch_size: 64,
            seed: 0,
            max_train_examples: None,
            max_eval_examples: None,
            skip_bad_rows: false,
        }
    }
}

impl FineTuneSettings {
    pub fn bad_rows(&self) -> BadRows {
        if self.skip_bad_rows { BadRows::Skip } else { BadRows::Refuse }
    }

    /// An error that names the first setting that cannot be used.
    pub fn check(&self) -> Result<(), GlueError> {
        let at_least_one = [
            ("batch_size", self.batch_size == 0),
            ("micro_batch_size", self.micro_batch_size == 0),
            ("input_length", self.input_length == 0),
            ("target_length", self.target_length == 0),
            ("evaluate_every", self.evaluate_every == 0),
            ("evaluation_batch_size", self.evaluation_batch_size == 0),
            ("max_train_examples", self.max_train_examples == Some(0)),
            ("max_eval_examples", self.max_eval_examples == Some(0)),
        ];
        for (name, zero) in at_least_one {
            if zero {
                return Err(GlueError::Setting { name, problem: "0, must be at least 1".to_owned() });
            }
        }
        let in_range = [
            ("learning_rate", self.learning_rate, self.learning_rate > 0.0, "above 0"),
            ("dropout", self.dropout, (0.0..1.0).contains(&self.dropout), "from 0 to below 1"),
            ("z_loss", self.z_loss, self.z_loss >= 0.0, "at least 0"),
            (
                "clip_norm",
                self.clip_norm.unwrap_or(1.0),
                self.clip_norm.is_none_or(|norm| norm > 0.0),
                "above 0",
            ),
        ];
        for (name, value, valid, range) in in_range {
            if !(valid && value.is_finite()) {
                return Err(GlueError::Setting { name, problem: format!("{value}, must be {range}") });
            }
        }
        match self.optimizer.problem() {
            Some(problem) => Err(GlueError::Setting { name: "optimizer", problem }),
            None => Ok(()),
        }
    }
}
