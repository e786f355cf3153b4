//! The loop of every training. What is due at a step depends on the state alone, which is what a checkpoint restores.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fusion_core::lineage::Lineage;
use serde::Serialize;
use serde_json::{Map, Value};

use super::checkpoints::Checkpoints;
use super::error::{Intact, Result, TrainError};
use super::identity::Identity;
use super::regime::{Event, Progress, Regime, State};
use super::snapshot::{Saved, Snapshot};
use crate::optimizer::OptimizerState;
use crate::text::Tokenizer;
use crate::{Dropout, Optimizer, Session, SessionError, Update, training_flops_per_token};

/// How long an asynchronous device computes before it is asked how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens the model: the one to start from, or the checkpoint in a directory from which an interrupted training
/// continues. Called at most once per training, and not at all for one that has finished.
pub type OpenSession<'a> =
    dyn FnMut(Option<&Path>) -> Result<Box<dyn Session>, Box<dyn Error + Send + Sync>> + 'a;

/// Receives the events of a training whose evaluations are `E`s.
pub type Observer<'a, E> = dyn FnMut(Event<'_, E>) + 'a;

/// What the loop must know of a training.
pub struct Job<'a> {
    /// Updates of the weights; with 0, the model is evaluated as it is.
    pub steps: u64,
    /// Updates between two evaluations; the last step is always evaluated.
    pub evaluate_every: u64,
    /// Whether the model is evaluated before the first update, too.
    pub evaluate_first: bool,
    /// Updates between two checkpoints.
    pub checkpoint_every: u64,
    /// Updates between two entries of the log.
    pub log_every: u64,
    /// How gradients become updates.
    pub optimizer: Optimizer,
    /// The optimiser's state to start with, if not an empty one.
    pub carried: Option<&'a OptimizerState>,
    /// The norm that all gradients together are scaled down to.
    pub clip_norm: Option<f64>,
    /// Factor of `log(Z)²` in the loss.
    pub z_loss: f64,
    /// Its rate and its seed.
    pub dropout: Dropout,
    /// Where to keep checkpoints.
    pub checkpoints: Checkpoints,
    /// What decides the result; checkpoints of another identity are not continued.
    pub identity: Identity,
    /// The lineage of the model to start from.
    pub lineage: &'a Lineage,
    /// What the trained model's lineage says of this training besides its length.
    pub record: Map<String, Value>,
    /// Saved with the weights.
    pub tokenizer: &'a Tokenizer,
}

impl Job<'_> {
    /// Updates behind the optimiser's state after `step` of this training.
    fn optimizer_step(&self, step: u64) -> u64 {
        self.carried.map_or(0, OptimizerState::step).saturating_add(step)
    }
}

/// A training under way.
pub struct Training<'a, S> {
    job: Job<'a>,
    session: Box<dyn Session>,
    /// Where it stands.
    pub state: S,
    /// What the newest checkpoint holds.
    saved: Option<S>,
    begun: Begun,
    /// Lines of metrics that the checkpoint counts and the file lacks.
    pub(super) missing_metrics: u64,
}

/// Updates that the device was given and whose results have not been read.
#[derive(Default)]
struct Begun {
    updates: Vec<BegunUpdate>,
    /// When the first of them began.
    since: Option<Instant>,
}

struct BegunUpdate {
    step: u64,
    tokens: u64,
    learning_rate: f64,
}

impl<'a, S: State> Training<'a, S> {
    /// Opens the newest checkpoint, or the model to start from if there is none.
    ///
    /// # Errors
    /// A checkpoint that is damaged or of another identity; a model that cannot be opened.
    pub fn open(job: Job<'a>, open_session: &mut OpenSession<'_>) -> Result<Self, TrainError> {
        let mut open = |checkpoint| open_session(checkpoint).map_err(TrainError::Open);
        let (session, saved) = match job.checkpoints.newest()? {
            None => {
                let mut session = open(None)?;
                if let Some(carried) = job.carried {
                    session.load_optimizer_state(carried.load()?)?;
                }
                (session, None)
            }
            Some(path) => {
                let damaged = |error| job.checkpoints.damaged(&path, error);
                let saved = Saved::<S>::read(&path).map_err(damaged)?;
                // Before the weights are read: the answer should come at once.
                job.identity.check(&saved.identity, &path)?;
                let moments = saved.verify(&path).map_err(damaged)?;
                let mut session = open(Some(&path))?;
                session.load_optimizer_state(moments)?;
                (session, Some(saved.state))
            }
        };
        let state = saved.clone().unwrap_or_default();
        Ok(Training { job, session, state, saved, begun: Begun::default(), missing_metrics: 0 })
    }

    /// Trains to the end, or until `stop` is set; then the update under way is finished and a checkpoint written. False
    /// if it was stopped.
    ///
    /// # Errors
    /// Whatever goes wrong; checkpoints written before stay whole.
    pub fn run<R: Regime<State = S>>(
        &mut self,
        regime: &mut R,
        observer: &mut Observer<'_, R::Evaluation>,
        stop: &AtomicBool,
    ) -> Result<bool, R::Error> {
        if let Some(state) = &self.saved {
            let (step, missing_metrics) = (state.progress().step, self.missing_metrics);
            let path = self.job.checkpoints.path(step);
            path.inspect(|checkpoint| observer(Event::Resumed { checkpoint, step, missing_metrics }));
        }
        let &mut Job { steps, evaluate_every, evaluate_first, checkpoint_every, .. } = &mut self.job;
        loop {
            let step = self.state.progress().step;
            let last = step >= steps;
            let due = last || (step.is_multiple_of(evaluate_every) && (step > 0 || evaluate_first));
            let evaluated = !due || self.evaluate(regime, observer)?;
            let ended = evaluated && (last || regime.ends_early(&self.state));
            if ended && regime.conclude(self.session.as_mut())? {
                return Ok(true);
            }
            let stopped = !evaluated || ended || stop.load(Ordering::Relaxed);
            if stopped || (step > 0 && step.is_multiple_of(checkpoint_every)) {
                self.checkpoint(regime, observer)?;
            }
            if stopped {
                return Ok(false);
            }
            self.update(regime, observer)?;
        }
    }

    /// Saves the model as it is now, with the training's state, and with the optimiser's moments if so wished.
    ///
    /// # Errors
    /// Weights that are not finite; whatever keeps the files from being written.
    pub fn save<E>(
        &self,
        path: &Path,
        with_optimizer: bool,
        observer: &mut Observer<'_, E>,
    ) -> Result<(), TrainError> {
        let start = Instant::now();
        self.save_with(&self.state, path, with_optimizer)?;
        let (step, seconds) = (self.state.progress().step, start.elapsed().as_secs_f64());
        observer(Event::CheckpointWritten { path, step, seconds });
        Ok(())
    }

    /// Saves the model as it is now without the optimiser's moments, and with `state` for the training's.
    ///
    /// # Errors
    /// As [`Training::save`].
    pub fn save_model(&self, state: &impl Serialize, path: &Path) -> Result<(), TrainError> {
        self.save_with(state, path, false)
    }

    fn save_with(&self, state: &impl Serialize, path: &Path, with_optimizer: bool) -> Result<()> {
        let (job, progress) = (&self.job, self.state.progress());
        let snapshot = Snapshot {
            state,
            identity: &job.identity,
            lineage: progress.lineage(job.lineage, &job.record),
            tokenizer: job.tokenizer,
            optimizer: with_optimizer.then(|| (job.optimizer, job.optimizer_step(progress.step))),
        };
        snapshot.write(self.session.as_ref(), path).map_err(|source| TrainError::Save {
            step: progress.step,
            source: Box::new(source),
            intact: self.intact(),
        })
    }

    /// The directory of the checkpoint of this step.
    pub(super) fn checkpoint_of_step(&self) -> Option<PathBuf> {
        self.job.checkpoints.path(self.state.progress().step)
    }

    fn intact(&self) -> Intact {
        Intact(self.saved.as_ref().and_then(|state| self.job.checkpoints.path(state.progress().step)))
    }

    fn update<R: Regime<State = S>>(
        &mut self,
        regime: &mut R,
        observer: &mut Observer<'_, R::Evaluation>,
    ) -> Result<(), R::Error> {
        self.begun.since.get_or_insert_with(Instant::now);
        let mut progress = self.state.progress();
        let step = progress.step + 1;
        let batches = regime.batches(&mut self.state, step)?;
        let job = &self.job;
        let update = Update {
            optimizer: job.optimizer,
            learning_rate: regime.learning_rate(step),
            step,
            optimizer_step: job.optimizer_step(step),
            clip_norm: job.clip_norm,
            z_loss: job.z_loss,
            dropout: job.dropout,
        };
        let begun = self.session.begin_step(&batches, &update);
        begun.map_err(|source| self.failed(step, source))?;

        let before = progress.tokens;
        for batch in &batches {
            let tokens = batch.input_tokens() + batch.target_tokens();
            let each =
                training_flops_per_token(self.session.config(), batch.input_length, batch.target_length);
            progress.tokens += tokens;
            progress.flops += each * tokens as f64;
        }
        self.state.set_progress(Progress { step, ..progress });
        let (tokens, learning_rate) = (progress.tokens - before, update.learning_rate);
        self.begun.updates.push(BegunUpdate { step, tokens, learning_rate });
        let waited = self.begun.since.is_some_and(|since| since.elapsed() >= PATIENCE);
        let log = step.is_multiple_of(self.job.log_every) || step == self.job.steps;
        if log || waited || !self.session.is_asynchronous() {
            self.collect(regime, observer)?;
        }
        if log { regime.log(&mut self.state) } else { Ok(()) }
    }

    /// Waits for the updates that were begun, and passes on what they saw.
    fn collect<R: Regime<State = S>>(
        &mut self,
        regime: &mut R,
        observer: &mut Observer<'_, R::Evaluation>,
    ) -> Result<(), R::Error> {
        let Begun { updates, since } = std::mem::take(&mut self.begun);
        let Some(first) = updates.first() else { return Ok(()) };
        let results = self.session.finish_steps().map_err(|source| self.failed(first.step, source))?;
        // An asynchronous device does not say how long each update took.
        let elapsed = since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        let seconds = elapsed / updates.len() as f64;
        for (BegunUpdate { step, tokens, learning_rate }, result) in updates.into_iter().zip(results) {
            regime.updated(&mut self.state, &result, tokens, seconds);
            observer(Event::Step {
                step,
                loss: result.loss,
                accuracy: result.correct as f64 / result.tokens.max(1) as f64,
                gradient_norm: result.gradient_norm,
                learning_rate,
                tokens,
                seconds,
            });
        }
        Ok(())
    }

    fn failed(&self, step: u64, source: SessionError) -> TrainError {
        let step = match source {
            SessionError::NonFinite { step, .. } => step,
            _ => step,
        };
        TrainError::Update { step, source: source.into(), intact: self.intact() }
    }

    /// Evaluates, unless that was done at this step already. False if it was stopped meanwhile.
    fn evaluate<R: Regime<State = S>>(
        &mut self,
        regime: &mut R,
        observer: &mut Observer<'_, R::Evaluation>,
    ) -> Result<bool, R::Error> {
        self.collect(regime, observer)?;
        if self.state.is_evaluated() {
            return Ok(true);
        }
        let (start, step) = (Instant::now(), self.state.progress().step);
        let progress = &mut |done, of| observer(Event::Evaluating { step, done, of });
        let evaluated = regime.evaluate(&mut self.state, self.session.as_mut(), progress);
        let evaluated = evaluated.map_err(|error| regime.evaluation_failed(error, step, self.intact()))?;
        let Some(evaluations) = evaluated else { return Ok(false) };
        let seconds = start.elapsed().as_secs_f64();
        for evaluation in &evaluations {
            observer(Event::Evaluated { step, evaluation, seconds });
        }
        Ok(true)
    }

    /// Writes a checkpoint, unless the newest holds just this.
    fn checkpoint<R: Regime<State = S>>(
        &mut self,
        regime: &mut R,
        observer: &mut Observer<'_, R::Evaluation>,
    ) -> Result<(), R::Error> {
        self.collect(regime, observer)?;
        let Some(path) = self.checkpoint_of_step().filter(|_| self.saved.as_ref() != Some(&self.state))
        else {
            return Ok(());
        };
        regime.sync()?;
        self.save(&path, true, observer)?;
        self.saved = Some(self.state.clone());
        Ok(self.job.checkpoints.prune()?)
    }
}
