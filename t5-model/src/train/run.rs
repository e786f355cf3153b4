//! A run: what it is given, what it says meanwhile, and where it goes on.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use fusion_core::HostTensors;
use fusion_core::lineage::Lineage;
use serde_json::Value;

use super::directory::RunDirectory;
use super::error::{Result, TrainError};
use super::evaluate::EvaluationPoint;
use super::identity::Identity;
use super::metrics::MetricsFile;
use super::progress::{Progress, State};
use super::settings::Settings;
use super::snapshot::Saved;
use super::training::{Begun, Training};
use crate::optimizer::OptimizerState;
use crate::text::{self, DataPosition, SpanCorruptionStream, Tokenizer};
use crate::{Session, T5Config, TensorBoard};

/// Opens the model: the one to start from, or the checkpoint in a directory, from which an interrupted run goes on.
/// Called at most once, and not at all for a run that has finished.
pub type OpenSession<'a> =
    dyn FnMut(Option<&Path>) -> Result<Box<dyn Session>, Box<dyn Error + Send + Sync>> + 'a;

/// Opens the training text at a position, in batches of [`Settings::micro_batch_size`].
pub type OpenTrainingText<'a> = dyn FnMut(DataPosition) -> text::Result<SpanCorruptionStream> + 'a;

/// Opens the evaluation text at its beginning.
pub type OpenEvaluationText<'a> = dyn FnMut() -> text::Result<SpanCorruptionStream> + 'a;

/// A pretraining: everything that decides its result.
pub struct Run<'a> {
    /// Where the run lives; created if it does not exist.
    pub directory: &'a Path,
    pub settings: &'a Settings,
    /// Of the model to start from.
    pub config: &'a T5Config,
    /// Of the model to start from, with the hash of its weights unless they are random.
    pub lineage: &'a Lineage,
    /// The optimiser's state that comes with the model to start from, for [`Settings::carry_optimizer`].
    pub carried: Option<&'a OptimizerState>,
    /// Saved beside the weights.
    pub tokenizer: &'a Tokenizer,
    /// What else decides the result: names of the text's files and how they are cut, the seed of random weights. A run
    /// whose checkpoints were made with other values is not continued; errors call them by these keys.
    pub identity: BTreeMap<String, Value>,
    pub open_session: &'a mut OpenSession<'a>,
    pub open_training_text: &'a mut OpenTrainingText<'a>,
    pub open_evaluation_text: &'a mut OpenEvaluationText<'a>,
}

/// What a caller is told while it waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run goes on from a checkpoint. `missing_metrics` lines had been written before it and are gone.
    Resumed {
        checkpoint: &'a Path,
        step: u64,
        missing_metrics: u64,
    },
    /// One update.
    Step {
        step: u64,
        loss: f64,
        accuracy: f64,
        gradient_norm: f64,
        learning_rate: f64,
        /// Input and target tokens of this update.
        tokens: u64,
        seconds: f64,
    },
    Evaluated {
        point: EvaluationPoint,
        seconds: f64,
    },
    CheckpointWritten {
        path: &'a Path,
        step: u64,
        seconds: f64,
    },
}

impl<'a> Run<'a> {
    /// The optimiser's state that the run goes on from, if it shall.
    pub(super) fn carried(&self) -> Option<&'a OptimizerState> {
        self.carried.filter(|_| self.settings.carry_optimizer)
    }

    /// Updates behind the optimiser's state at the start.
    pub(super) fn carried_steps(&self) -> u64 {
        self.carried().map_or(0, OptimizerState::step)
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// False if it was stopped before its last step.
    pub finished: bool,
    /// `model/` of a finished run, else the newest checkpoint.
    pub checkpoint: PathBuf,
    pub step: u64,
    /// Input and target tokens trained on.
    pub tokens: u64,
    /// Floating-point operations spent.
    pub flops: f64,
    /// One before the first update, then at intervals, one at the end.
    pub evaluations: Vec<EvaluationPoint>,
}

impl Outcome {
    pub(super) fn new(finished: bool, checkpoint: PathBuf, progress: &Progress) -> Self {
        let Progress { step, tokens, flops, ref evaluations, .. } = *progress;
        Outcome { finished, checkpoint, step, tokens, flops, evaluations: evaluations.clone() }
    }
}

/// Trains until the last step, or until `stop` is set: then the update under way is finished and a checkpoint written.
/// Goes on where an earlier call in the same directory stopped; a run that has finished returns at once.
///
/// # Errors
/// See [`TrainError`]; whatever happens, checkpoints that were written stay whole.
pub fn train(
    run: Run<'_>,
    observer: &mut dyn FnMut(Event<'_>),
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    run.settings.validate()?;
    if run.settings.carry_optimizer && run.carried.is_none() {
        let problem = "the model to start from comes without an optimiser's state".into();
        return Err(TrainError::Setting { key: "carry_optimizer", problem });
    }
    let identity = Identity::of(&run);
    let directory = RunDirectory::open(run.directory)?;
    if let Some(outcome) = finished(&directory, &identity)? {
        return Ok(outcome);
    }
    let resumed = Resumed::newest(&directory, &identity)?;
    let start = resumed.as_ref().map(|resumed| resumed.checkpoint.as_path());
    let mut session = (run.open_session)(start).map_err(TrainError::Open)?;
    let metrics_lines = resumed.as_ref().map_or(0, |resumed| resumed.saved.state.metrics_lines);
    let (metrics, missing_metrics) = MetricsFile::open(directory.path(), metrics_lines)?;
    let saved = match resumed {
        None => {
            if let Some(carried) = run.carried() {
                session.load_optimizer_state(carried.load()?)?;
            }
            None
        }
        Some(Resumed { checkpoint, saved: Saved { state: State { progress, .. }, .. }, optimizer }) => {
            session.load_optimizer_state(optimizer)?;
            observer(Event::Resumed { checkpoint: &checkpoint, step: progress.step, missing_metrics });
            Some(progress)
        }
    };
    let progress = saved.clone().unwrap_or_default();
    let board = TensorBoard::open(directory.path(), progress.step)?;
    let begun = Begun::default();
    Training { run, identity, directory, session, progress, begun, saved, metrics, board, observer, stop }
        .complete()
}

/// What a finished run came to.
fn finished(directory: &RunDirectory, identity: &Identity) -> Result<Option<Outcome>> {
    let checkpoint = directory.model();
    if !checkpoint.exists() {
        return Ok(None);
    }
    let State { progress, identity: earlier, .. } =
        damaged_if(Saved::read(&checkpoint), &checkpoint, || directory.steps())?.state;
    identity.check(&earlier, &checkpoint)?;
    Ok(Some(Outcome::new(true, checkpoint, &progress)))
}

/// A checkpoint that a run goes on from.
struct Resumed {
    checkpoint: PathBuf,
    saved: Saved<State>,
    optimizer: HostTensors,
}

impl Resumed {
    fn newest(directory: &RunDirectory, identity: &Identity) -> Result<Option<Self>> {
        let mut steps = directory.steps()?;
        let Some(step) = steps.pop() else { return Ok(None) };
        let checkpoint = directory.checkpoint(step);
        let saved: Saved<State> = damaged_if(Saved::read(&checkpoint), &checkpoint, || Ok(steps.clone()))?;
        // Before the weights are read: the answer should come at once.
        identity.check(&saved.state.identity, &checkpoint)?;
        let optimizer = damaged_if(saved.verify(&checkpoint), &checkpoint, || Ok(steps.clone()))?;
        Ok(Some(Resumed { checkpoint, saved, optimizer }))
    }
}

/// Turns an error from reading a checkpoint into advice; `earlier` gives the steps one can go back to.
fn damaged_if<T>(
    result: Result<T>,
    checkpoint: &Path,
    earlier: impl FnOnce() -> Result<Vec<u64>>,
) -> Result<T> {
    match result {
        Ok(read) => Ok(read),
        Err(error @ TrainError::Version { .. }) => Err(error),
        Err(error) => {
            let earlier = earlier()?.last().map_or("the beginning".into(), |step| format!("step {step}"));
            Err(TrainError::Damaged { checkpoint: checkpoint.into(), problem: error.to_string(), earlier })
        }
    }
}
