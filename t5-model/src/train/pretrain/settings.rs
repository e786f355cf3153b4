//! How to pretrain.

use serde::{Deserialize, Serialize};

use crate::train::error::TrainError;
use crate::train::identity::Identity;
use crate::{Optimizer, Schedule};

/// How to pretrain. The defaults are nanoT5's (T5-base 1.1 in 65,536 steps on one GPU).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Settings {
    /// Number of updates.
    ///
    /// With 0, the model is evaluated and saved as it is.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.steps))]
    pub steps: u64,
    /// Examples per update.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.batch_size))]
    pub batch_size: usize,
    /// Examples on the device at once; must divide the batch size [default: the batch size].
    ///
    /// Gradients are accumulated over a batch's micro-batches.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub micro_batch_size: Option<usize>,
    /// The optimiser.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = DEFAULT.optimizer))]
    pub optimizer: Optimizer,
    /// Start with the optimiser's state that comes with the model.
    #[cfg_attr(feature = "clap", arg(long))]
    pub carry_optimizer: bool,
    /// The learning rate of each update.
    #[serde(flatten)]
    #[cfg_attr(feature = "clap", command(flatten))]
    pub schedule: Schedule,
    /// The global gradient norm to clip to; 0 for no clipping.
    #[cfg_attr(feature = "clap", arg(long, value_name = "NORM", default_value = "1"))]
    pub clip_norm: Option<f64>,
    /// Coefficient of log(Z)² in the loss.
    ///
    /// T5X: 1e-4.
    #[cfg_attr(feature = "clap", arg(long, value_name = "FACTOR", default_value_t = DEFAULT.z_loss))]
    pub z_loss: f64,
    /// Dropout rate; T5 pretrains without dropout.
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATE", default_value_t = DEFAULT.dropout))]
    pub dropout: f64,
    /// Seed for new weights, for the order and corruption of the text, and for dropout.
    ///
    /// The training loop itself uses it only for dropout. The rest is a convention among callers that open a
    /// model and text.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.seed))]
    pub seed: u64,
    /// Updates between evaluations.
    ///
    /// The model is always evaluated before the first update and after the last.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.evaluate_every))]
    pub evaluate_every: u64,
    /// Batches per evaluation, of the batch size.
    ///
    /// Fewer if the text is shorter. How they are cut into micro-batches changes nothing but rounding.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.evaluation_batches))]
    pub evaluation_batches: u64,
    /// Updates between checkpoints.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.checkpoint_every))]
    pub checkpoint_every: u64,
    /// Minutes after which a checkpoint is written in any case; 0 for never.
    #[cfg_attr(feature = "clap", arg(long, value_name = "MINUTES", default_value_t = DEFAULT.checkpoint_minutes))]
    pub checkpoint_minutes: f64,
    /// How many checkpoints are kept, the newest ones.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.keep_checkpoints))]
    pub keep_checkpoints: usize,
    /// Steps at which the model is kept in `kept/`, whatever happens to checkpoints.
    ///
    /// With the optimiser's state if that of the last step is kept as well. A recipe need not list what other stages take,
    /// as `trunk@1000`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEP,…", value_delimiter = ','))]
    pub keep_steps: Vec<u64>,
    /// Updates between two lines of metrics, which average over them.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = DEFAULT.log_every))]
    pub log_every: u64,
    /// Save the optimiser's state with the final model too.
    #[cfg_attr(feature = "clap", arg(long))]
    pub keep_optimizer: bool,
}

const DEFAULT: Settings = Settings {
    steps: 65_536,
    batch_size: 128,
    micro_batch_size: None,
    optimizer: Optimizer::adamw_scale(),
    carry_optimizer: false,
    schedule: Schedule::DEFAULT,
    clip_norm: Some(1.0),
    z_loss: 0.0,
    dropout: 0.0,
    seed: 0,
    evaluate_every: 2_000,
    evaluation_batches: 500,
    checkpoint_every: 2_000,
    checkpoint_minutes: 10.0,
    keep_checkpoints: 2,
    keep_steps: Vec::new(),
    log_every: 100,
    keep_optimizer: false,
};

impl Default for Settings {
    fn default() -> Self {
        DEFAULT
    }
}

/// A year.
const MAX_MINUTES: f64 = 525_600.0;
/// More examples than an update ever needs; a batch is assembled before it is computed.
const MAX_BATCH: usize = 1 << 20;

impl Settings {
    /// Settings that make no difference once a run has finished.
    pub const NEUTRAL: &[&str] = &["checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "log_every"];

    /// Settings that change no weight, only which evaluations there are.
    pub const MEASURING: &[&str] = &["evaluate_every", "evaluation_batches"];

    /// The settings that determine the weights and what the evaluations measure.
    pub(super) fn identity(&self) -> Identity {
        let mut identity = Identity::of_settings(self, Self::NEUTRAL);
        identity.remove("evaluate_every"); // a resumed run evaluates at other steps from then on
        // These decide what is saved with them.
        identity.remove("keep_optimizer");
        identity.remove("keep_steps");
        // The same, given or not.
        identity.insert("micro_batch_size", self.micro_batch_size());
        identity.insert("warm_up", self.schedule.warm_up(self.steps));
        identity
    }

    /// Examples on the device at a time: the batch size of the training text's stream.
    pub fn micro_batch_size(&self) -> usize {
        self.micro_batch_size.unwrap_or(self.batch_size)
    }

    /// Checks the settings, individually and in combination.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), TrainError> {
        let fail = |key: &'static str, problem: String| Err(TrainError::Setting { key, problem });
        for (key, count) in [
            ("batch_size", self.batch_size as u64),
            ("micro_batch_size", self.micro_batch_size() as u64),
            ("evaluate_every", self.evaluate_every),
            ("evaluation_batches", self.evaluation_batches),
            ("checkpoint_every", self.checkpoint_every),
            ("keep_checkpoints", self.keep_checkpoints as u64),
            ("log_every", self.log_every),
        ] {
            if count == 0 {
                return fail(key, "it must be at least 1".into());
            }
        }
        let (batch, micro) = (self.batch_size, self.micro_batch_size());
        if batch > MAX_BATCH {
            return fail("batch_size", format!("{batch} is more than {MAX_BATCH}"));
        }
        if !batch.is_multiple_of(micro) {
            return fail("micro_batch_size", format!("{micro} does not divide batch_size {batch}"));
        }
        if let Some(problem) = self.optimizer.problem() {
            return fail("optimizer", problem);
        }
        if let Some(step) = self.keep_steps.iter().find(|step| **step > self.steps) {
            return fail("keep_steps", format!("there is no step {step}; there are {} in all", self.steps));
        }
        if let Some((key, problem)) = self.schedule.problem(self.steps) {
            return fail(key, problem);
        }
        if self.clip_norm.is_some_and(|norm| !(norm >= 0.0 && norm.is_finite())) {
            return fail("clip_norm", "it must be a positive number, or 0 for no clipping".into());
        }
        if !(self.checkpoint_minutes >= 0.0 && self.checkpoint_minutes <= MAX_MINUTES) {
            let problem = format!("{} is not a number from 0 to {MAX_MINUTES}", self.checkpoint_minutes);
            return fail("checkpoint_minutes", problem);
        }
        if !(self.z_loss >= 0.0 && self.z_loss.is_finite()) {
            return fail("z_loss", format!("{} is not a number of at least 0", self.z_loss));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail("dropout", format!("{} is not a rate of at least 0 and below 1", self.dropout));
        }
        Ok(())
    }
}
