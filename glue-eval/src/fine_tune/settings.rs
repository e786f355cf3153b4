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
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FineTuneSettings {
    /// Updates for each task.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.steps))]
    pub steps: u64,
    /// Examples per update.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.batch_size))]
    pub batch_size: usize,
    /// Examples on the device at once.
    ///
    /// Gradients are summed over a batch's micro-batches.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.micro_batch_size))]
    pub micro_batch_size: usize,
    /// The optimiser.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = DEFAULT.optimizer))]
    pub optimizer: Optimizer,
    /// The learning rate, constant throughout.
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATE", default_value_t = DEFAULT.learning_rate))]
    pub learning_rate: f64,
    /// Dropout rate.
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATE", default_value_t = DEFAULT.dropout))]
    pub dropout: f64,
    /// Factor of `log(Z)²` in the loss (T5X: 1e-4).
    #[cfg_attr(feature = "clap", arg(long, value_name = "FACTOR", default_value_t = DEFAULT.z_loss))]
    pub z_loss: f64,
    /// The norm that all gradients together are scaled down to; T5 does not clip.
    #[cfg_attr(feature = "clap", arg(long, value_name = "NORM"))]
    pub clip_norm: Option<f64>,
    /// Maximum tokens per input; longer inputs are cut.
    ///
    /// The length includes the end token, before which longer inputs are cut (seqio's `append_eos_after_trim`).
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.input_length))]
    pub input_length: usize,
    /// The most tokens of a target, end token included, and the most that are generated.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.target_length))]
    pub target_length: usize,
    /// Train one model on all tasks, mixed in proportion to their number of examples.
    ///
    /// Otherwise, there is one model per task.
    #[cfg_attr(feature = "clap", arg(long))]
    pub mixture: bool,
    /// Updates between evaluations; the last step is always evaluated.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.evaluate_every))]
    pub evaluate_every: u64,
    /// Examples answered at a time.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.evaluation_batch_size))]
    pub evaluation_batch_size: usize,
    /// How answers are obtained.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t))]
    pub score: Scoring,
    /// Stop fine-tuning after this many evaluations in a row without a better score.
    ///
    /// That is, no better score of any of its tasks.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub early_stopping: Option<u64>,
    /// Bootstrap resamples for confidence intervals; 0 for none.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.bootstrap))]
    pub bootstrap: usize,
    /// The first seed, for the order of examples and for dropout.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.seed))]
    pub seed: u64,
    /// Number of seeds, counting up from the first; each task's mean and standard deviation over them are
    /// reported.
    ///
    /// Each has a fine-tuning of its own.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.seeds))]
    pub seeds: u64,
    /// Train on at most this many examples of each task.
    ///
    /// They are drawn alike for every seed.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub max_train_examples: Option<usize>,
    /// Score on at most this many examples of each development set.
    ///
    /// They are drawn alike for every seed.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub max_eval_examples: Option<usize>,
    /// Skip rows that are not valid examples instead of stopping.
    ///
    /// They are counted.
    #[cfg_attr(feature = "clap", arg(long))]
    pub skip_bad_rows: bool,
    /// Also answer the test sets with the model of this step, and write the files that the GLUE server
    /// accepts.
    #[cfg_attr(feature = "clap", arg(long, value_enum, value_name = "STEP"))]
    pub submission: Option<AtStep>,
    /// Keep the model of the last step.
    #[cfg_attr(feature = "clap", arg(long))]
    pub save_models: bool,
    /// Updates between checkpoints.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.checkpoint_every))]
    pub checkpoint_every: u64,
    /// Minutes after which a checkpoint is written in any case; 0 for never.
    #[cfg_attr(feature = "clap", arg(long, value_name = "MINUTES", default_value_t = DEFAULT.checkpoint_minutes))]
    pub checkpoint_minutes: f64,
    /// Updates between two points of the curves.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.log_every))]
    pub log_every: u64,
}

/// One of the steps of a fine-tuning that are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AtStep {
    /// The step at which each task scored best on its development set.
    ///
    /// The evaluation with the task's highest mean of metrics, the earliest of several. T5 reports this one. It is
    /// optimistic, having been chosen on the development set itself.
    Best,
    /// The last step.
    ///
    /// Nothing was chosen for it.
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

const DEFAULT: FineTuneSettings = FineTuneSettings {
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
    checkpoint_minutes: 10.0,
    log_every: 50,
};

impl Default for FineTuneSettings {
    fn default() -> Self {
        DEFAULT
    }
}

impl FineTuneSettings {
    /// Settings that make no difference once a fine-tuning has finished.
    pub const NEUTRAL: &[&str] = &["checkpoint_every", "checkpoint_minutes", "log_every"];

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
            (
                "checkpoint_minutes",
                self.checkpoint_minutes,
                (0.0..=525_600.0).contains(&self.checkpoint_minutes),
                "from 0 to 525600",
            ),
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
