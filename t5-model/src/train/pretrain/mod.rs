//! The inputs and the outcome of a pretraining run.

mod evaluate;
mod metrics;
mod regime;
mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fusion_core::atomic::{check_directory, claim, claim_new, is_left_over};
use fusion_core::lineage::Lineage;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::metrics::MetricsFile;
use self::regime::{Logs, Measured, Pretraining};
use super::checkpoints::{Checkpoints, KEPT, Kept, LOCK, lock};
use super::control::Control;
use super::error::{Result, TrainError};
use super::identity::Identity;
use super::regime::{Event, Progress, Standing};
use super::snapshot::{STATE, Saved};
use super::training::{Job, Observer, OpenSession, Training, checkpoint_after};
use crate::optimizer::OptimizerState;
use crate::text::{self, DataPosition, ExampleStream, Objective, Tokenizer};
use crate::{Dropout, T5Config, TensorBoard};

pub use evaluate::{Evaluation, EvaluationPoint, EvaluationSize, Quality, evaluate};
pub use metrics::{Metrics, read_metrics};
pub use regime::OpenEvaluationText;
pub use settings::Settings;

/// Opens the training text at a position, in batches of [`Settings::micro_batch_size`].
pub type OpenTrainingText<'a> = dyn FnMut(DataPosition) -> text::Result<ExampleStream> + 'a;

/// What a pretraining run reports to its caller.
pub type PretrainingEvent<'a> = Event<'a, EvaluationPoint>;

/// What a run writes into its directory, besides its lock.
const WRITTEN: [&str; 5] = ["checkpoints", KEPT, "model", metrics::FILE, TensorBoard::FOLDER];

/// A pretraining run: everything that determines its result.
pub struct Run<'a> {
    /// The run's directory; created if it does not exist.
    pub directory: &'a Path,
    /// How to train.
    pub settings: &'a Settings,
    /// The configuration of the model to start from.
    pub config: &'a T5Config,
    /// The lineage of the model to start from, with the hash of its weights unless they are random.
    pub lineage: &'a Lineage,
    /// The optimiser's state that comes with the model to start from, for [`Settings::carry_optimizer`].
    pub carried: Option<&'a OptimizerState>,
    /// Saved with the weights.
    pub tokenizer: &'a Tokenizer,
    /// Other files that are saved with the weights: see [`Job::beside`].
    pub beside: &'a BTreeMap<String, Vec<u8>>,
    /// What else determines the result: the names of the text's files and how they are cut, the seed for
    /// random weights. A run whose checkpoints were made with other values is not continued; errors name the
    /// values by these keys.
    pub identity: BTreeMap<String, Value>,
    /// Opens the model.
    pub open_session: &'a mut OpenSession<'a>,
    /// Opens the text to train on.
    pub open_training_text: &'a mut OpenTrainingText<'a>,
    /// Opens the held-out text.
    pub open_evaluation_text: &'a mut OpenEvaluationText<'a>,
}

impl<'a> Run<'a> {
    /// The optimiser's state to start with, if the settings ask for it.
    fn carried(&self) -> Option<&'a OptimizerState> {
        self.carried.filter(|_| self.settings.carry_optimizer)
    }

    /// Everything that determines the result.
    fn identity(&self) -> Identity {
        let mut identity = self.settings.identity();
        identity.insert("model", self.config.to_json());
        identity.insert("model.weights", self.lineage.blake3.clone());
        if let Some(carried) = self.carried() {
            identity.insert("model.optimizer", carried.blake3());
            identity.insert("model.optimizer.step", carried.step());
        }
        identity.insert("tokenizer", self.tokenizer.fingerprint());
        let mut identity = identity.flattened();
        identity.extend(&self.identity);
        identity.sorted()
    }
}

/// The objective of the pretraining that a checkpoint is of; `None` for one that is of none.
pub fn objective_of(directory: &Path) -> Option<Objective> {
    let saved: Map<String, Value> = fusion_core::json::read(&directory.join(STATE)).ok()?;
    let identity = saved.get("identity")?;
    // Fine-tunings have no text.
    identity.get("held-out text")?;
    match identity.get("objective") {
        None | Some(Value::Null) => Some(Objective::T5),
        Some(objective) => Objective::deserialize(objective).ok(),
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// False if it was stopped before its last step.
    pub finished: bool,
    /// `model/` if the run has finished, else its newest checkpoint.
    pub checkpoint: PathBuf,
    /// Updates of the weights.
    pub step: u64,
    /// Input and target tokens trained on.
    pub tokens: u64,
    /// Floating-point operations spent.
    pub flops: f64,
    /// One before the first update, one at each interval, and one at the end.
    pub evaluations: Vec<EvaluationPoint>,
}

impl Outcome {
    fn new(finished: bool, checkpoint: PathBuf, at: Standing<Measured>) -> Self {
        let Progress { step, tokens, flops, .. } = at.progress;
        Outcome { finished, checkpoint, step, tokens, flops, evaluations: at.measured.evaluations }
    }
}

/// Trains until the last step, or until `control` says to stop; then it finishes the current update and writes a
/// checkpoint. Continues where an earlier call in the same directory stopped; returns at once if the run has
/// finished.
///
/// # Errors
/// See [`TrainError`]; whatever happens, checkpoints written earlier stay intact.
pub fn train<'a>(
    run: Run<'a>,
    observer: &'a mut Observer<'a, EvaluationPoint>,
    control: &'a Control<'a>,
) -> Result<Outcome, TrainError> {
    let settings = run.settings;
    settings.validate()?;
    if settings.carry_optimizer && run.carried.is_none() {
        let problem = "the model to start from comes without an optimiser's state".into();
        return Err(TrainError::Setting { key: "carry_optimizer", problem });
    }
    let checkpoints =
        Checkpoints::Steps { folder: run.directory.join("checkpoints"), keep: settings.keep_checkpoints };
    let kept = Kept::in_run(run.directory, &settings.keep_steps, settings.keep_optimizer);
    let mut held = None;
    control.first(|| {
        claim(run.directory, &WRITTEN)?;
        held = Some(lock(run.directory)?);
        claim_new(run.directory, &[LOCK])?;
        checkpoints.tidy()?;
        kept.as_ref().map_or(Ok(()), |kept| kept.checkpoints.tidy())
    })?;
    let (identity, carried) = (run.identity(), run.carried());
    let model = run.directory.join("model");
    if model.exists() && !is_left_over(&model) {
        let saved = Saved::read(&model).map_err(|error| checkpoints.damaged(&model, error))?;
        identity.check(&saved.identity, &model)?;
        return Ok(Outcome::new(true, model, saved.state));
    }
    check_directory(&model)?;
    let job = Job {
        steps: settings.steps,
        evaluate_every: settings.evaluate_every,
        evaluate_first: true,
        checkpoint_every: settings.checkpoint_every,
        checkpoint_after: checkpoint_after(settings.checkpoint_minutes),
        log_every: settings.log_every,
        optimizer: settings.optimizer,
        carried,
        clip_norm: settings.clip_norm.filter(|norm| *norm > 0.0),
        z_loss: settings.z_loss,
        dropout: Dropout { rate: settings.dropout, seed: settings.seed },
        checkpoints,
        kept,
        identity,
        lineage: run.lineage,
        record: Map::new(),
        tokenizer: run.tokenizer,
        beside: run.beside,
    };
    let open_evaluation_text = run.open_evaluation_text;
    let mut training = Training::open(
        job,
        run.open_session,
        move |at: &mut Standing<Measured>| -> Result<Pretraining<'a>> {
            let Standing { progress, measured } = at;
            let (mut logs, mut missing_metrics) = (None, 0);
            if control.writes() {
                let metrics = MetricsFile::open(run.directory, measured.metrics_lines)?;
                missing_metrics = measured.metrics_lines - metrics.lines;
                measured.metrics_lines = metrics.lines;
                logs = Some(Logs { metrics, board: TensorBoard::open(run.directory, progress.step)? });
            }
            let text = (run.open_training_text)(*progress.position.get_or_insert_default())?;
            Ok(Pretraining { settings, text, open_evaluation_text, logs, missing_metrics, control })
        },
        observer,
        control,
    )?;
    if !training.run()? {
        let checkpoint = training.checkpoint_of_step().unwrap_or_default();
        return Ok(Outcome::new(false, checkpoint, training.at));
    }
    training.save(&model, settings.keep_optimizer)?;
    control.first(|| Ok::<_, TrainError>(()))?; // the model is there for all
    drop(held);
    Ok(Outcome::new(true, model, training.at))
}
