use serde::{Deserialize, Serialize};
use t5_model::Optimizer;

use crate::data::BadRows;
use crate::error::GlueError;

/// How a model is fine-tuned. The defaults are T5's (Raffel et al. 2020, section 3.1.2): batches of 128 for 2^18 steps,
/// Adafactor at a constant 1e-3, dropout 0.1, an evaluation every 5,000 steps.
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
    /// One model for all tasks, trained on their examples mixed, each task in proportion to its training set; else one
    /// model a task.
    pub mixture: bool,
    /// Updates between two evaluations on the development sets. The last step is always evaluated.
    pub evaluate_every: u64,
    pub evaluation_batch_size: usize,
    /// How answers are taken.
    pub score: Scoring,
    /// End a fine-tuning once so many evaluations in a row have brought none of its tasks a better score.
    pub early_stopping: Option<u64>,
    /// Resamples behind the confidence intervals; 0 for no intervals.
    pub bootstrap: usize,
    /// The first seed, of the examples' order and of dropout.
    pub seed: u64,
    /// Seeds, from the first on, each with a fine-tuning of its own.
    pub seeds: u64,
    /// At most so many training examples of each task, drawn alike for every seed.
    pub max_train_examples: Option<usize>,
    /// At most so many examples of each development set, drawn alike for every seed.
    pub max_eval_examples: Option<usize>,
    /// Leave out and count rows that are no examples, instead of stopping at the first one.
    pub skip_bad_rows: bool,
    /// Answer the test sets as well, at this step, in the files that GLUE's server takes.
    pub submission: Option<AtStep>,
    /// Keep the model of the last step.
    pub save_models: bool,
    /// Updates between two checkpoints that an interrupted fine-tuning goes on from.
    pub checkpoint_every: u64,
    /// Updates between two points of the curves.
    pub log_every: u64,
}

/// How a model's answer to a prompt is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scoring {
    /// Greedy decoding, as T5 does; an output that is no answer is invalid.
    #[default]
    Generate,
    /// The most likely of the possible answers: a label word, or a number from 0.0 to 5.0 in steps of 0.2. Cheaper, and
    /// never invalid.
    Rank,
}

/// A step of a fine-tuning that is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtStep {
    /// The evaluation with the task's highest mean of metrics, the earliest of several. T5 reports this one; having
    /// been chosen on the development set itself, it is optimistic.
    Best,
    /// The last, which nothing was chosen by.
    Last,
}

impl AtStep {
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
    /// Settings that change nothing about a finished fine-tuning.
    pub const NEUTRAL: &[&str] = &["checkpoint_every", "log_every"];

    pub fn bad_rows(&self) -> BadRows {
        if self.skip_bad_rows { BadRows::Skip } else { BadRows::Refuse }
    }

    pub fn all_seeds(&self) -> impl Iterator<Item = u64> {
        (0..self.seeds).map(|number| self.seed.wrapping_add(number))
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
