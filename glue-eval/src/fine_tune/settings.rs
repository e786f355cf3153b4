//! How a model is fine-tuned.

use serde::{Deserialize, Serialize};
use t5_model::Optimizer;
use t5_model::text::Tokenizer;
use t5_model::train::Identity;

use crate::answer::{Encoder, Scoring};
use crate::data::BadRows;
use crate::error::GlueError;

/// How a model is fine-tuned. The defaults are T5's (Raffel et al. 2020, section 3.1.2): batches of 128 for 2^18 steps,
/// Adafactor at a constant rate of 1e-3, dropout 0.1, an evaluation every 5,000 steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FineTuneSettings {
    /// Updates of the weights.
    pub steps: u64,
    /// Examples per update.
    pub batch_size: usize,
    /// Examples on the device at a time; gradients are summed over a batch's micro-batches.
    pub micro_batch_size: usize,
    /// How gradients become updates.
    pub optimizer: Optimizer,
    /// The same for all updates.
    pub learning_rate: f64,
    /// The rate of dropout.
    pub dropout: f64,
    /// Factor of `log(Z)²` in the loss (T5X: 1e-4).
    pub z_loss: f64,
    /// The norm that all gradients together are scaled down to; T5 does not clip.
    pub clip_norm: Option<f64>,
    /// The most tokens of an input, end token included. Longer inputs are cut before the end token (seqio's
    /// `append_eos_after_trim`).
    pub input_length: usize,
    /// The most tokens of a target, end token included, and the most that are generated.
    pub target_length: usize,
    /// One model for all tasks, trained on a mixture of their examples, each task in proportion to its training set.
    /// Otherwise, one model per task.
    pub mixture: bool,
    /// Updates between two evaluations on the development sets. The last step is always evaluated.
    pub evaluate_every: u64,
    /// Examples on the device at a time in an evaluation.
    pub evaluation_batch_size: usize,
    /// How answers are obtained.
    pub score: Scoring,
    /// End a fine-tuning once so many evaluations in a row have improved the score of none of its tasks.
    pub early_stopping: Option<u64>,
    /// Resamples behind the confidence intervals; 0 for no intervals.
    pub bootstrap: usize,
    /// The first seed, for the examples' order and for dropout.
    pub seed: u64,
    /// How many seeds, from the first on; each has a fine-tuning of its own.
    pub seeds: u64,
    /// At most so many training examples of each task, the same for every seed.
    pub max_train_examples: Option<usize>,
    /// At most so many examples of each development set, the same for every seed.
    pub max_eval_examples: Option<usize>,
    /// Skip and count rows that are no examples, instead of stopping at the first one.
    pub skip_bad_rows: bool,
    /// Answer the test sets, too, at this step, in the format of GLUE's server.
    pub submission: Option<AtStep>,
    /// Keep the model of the last step.
    pub save_models: bool,
    /// Updates between two checkpoints, from which an interrupted fine-tuning continues.
    pub checkpoint_every: u64,
    /// Updates between two points of the curves.
    pub log_every: u64,
}

/// One of the steps of a fine-tuning that are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtStep {
    /// The evaluation with the task's highest mean of metrics, the earliest of several. T5 reports this one. It is
    /// optimistic, having been chosen on the development set itself.
    Best,
    /// The last evaluation, for which nothing was chosen.
    Last,
}

impl AtStep {
    /// `best` or `last`.
    pub fn name(self) -> &'static str {
        match self {
            AtStep::Best => "best",
            AtStep::Last => "last",
        }
    }
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
            mixture: false,
            evaluate_every: 5_000,
            evaluation_batch_size: 64,
            score: Scoring::Generate,
            early_stopping: None,
            bootstrap: 1_000,
            seed: 0,
            seeds: 1,
            max_train_examples: None,
            max_eval_examples: None,
            skip_bad_rows: false,
            submission: None,
            save_models: false,
            checkpoint_every: 1_000,
            log_every: 50,
        }
    }
}

impl FineTuneSettings {
    /// Settings that make no difference once a fine-tuning has finished.
    pub const NEUTRAL: &[&str] = &["checkpoint_every", "log_every"];

    /// The settings that decide the result of the fine-tuning with this seed.
    pub(super) fn identity(&self, seed: u64) -> Identity {
        let mut identity = Identity::of_settings(self, Self::NEUTRAL);
        identity.remove("seeds"); // each is a fine-tuning of its own
        identity.insert("seed", seed);
        identity
    }

    pub(crate) fn encoder<'a>(&self, tokenizer: &'a Tokenizer) -> Encoder<'a> {
        Encoder { tokenizer, input_length: self.input_length, target_length: self.target_length }
    }

    /// What to do with rows that are no examples.
    pub fn bad_rows(&self) -> BadRows {
        if self.skip_bad_rows { BadRows::Skip } else { BadRows::Refuse }
    }

    /// All seeds, in order.
    pub fn all_seeds(&self) -> impl Iterator<Item = u64> {
        (0..self.seeds).map(|number| self.seed.wrapping_add(number))
    }

    /// Checks every setting by itself.
    ///
    /// # Errors
    /// [`GlueError::Setting`] for the first setting that cannot be used.
    pub fn check(&self) -> Result<(), GlueError> {
        let at_least_one = [
            ("batch_size", self.batch_size == 0),
            ("micro_batch_size", self.micro_batch_size == 0),
            ("input_length", self.input_length == 0),
            ("target_length", self.target_length == 0),
            ("evaluate_every", self.evaluate_every == 0),
            ("evaluation_batch_size", self.evaluation_batch_size == 0),
            ("early_stopping", self.early_stopping == Some(0)),
            ("seeds", self.seeds == 0),
            ("max_train_examples", self.max_train_examples == Some(0)),
            ("max_eval_examples", self.max_eval_examples == Some(0)),
            ("checkpoint_every", self.checkpoint_every == 0),
            ("log_every", self.log_every == 0),
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
