//! The loop shared by all kinds of training. What is due at a step depends only on the state, which is what a
//! checkpoint restores.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fusion_core::HostTensors;
use fusion_core::lineage::Lineage;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::checkpoints::{Checkpoints, Kept};
use super::control::Control;
use super::error::{Intact, Result, TrainError};
use super::identity::Identity;
use super::regime::{Event, Regime, Standing};
use super::snapshot::{Saved, Snapshot};
use crate::optimizer::OptimizerState;
use crate::text::Tokenizer;
use crate::{Batch, Dropout, Optimizer, Session, SessionError, Update, training_flops_per_token};

/// How long an asynchronous device computes before its progress is queried.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens the model: the one to start from, or the checkpoint in a directory from which an interrupted run
/// continues. Called at most once per run, and never for one that has finished.
pub type OpenSession<'a> =
    dyn FnMut(Option<&Path>) -> Result<Box<dyn Session>, Box<dyn Error + Send + Sync>> + 'a;

/// Receives the events of a training run whose evaluations have type `E`.
pub type Observer<'a, E> = dyn FnMut(Event<'_, E>) + 'a;

/// What the loop needs to know about a training run.
pub struct Job<'a> {
    /// Updates of the weights; with 0, the model is evaluated as it is.
    pub steps: u64,
    /// Updates between evaluations; the last step is always evaluated.
    pub evaluate_every: u64,
    /// Whether the model is also evaluated before the first update.
    pub evaluate_first: bool,
    /// Updates between two checkpoints.
    pub checkpoint_every: u64,
    /// Time after which a checkpoint is due, whatever the step.
    pub checkpoint_after: Option<Duration>,
    /// Updates between two entries of the log.
    pub log_every: u64,
    /// The rule that turns gradients into updates.
    pub optimizer: Optimizer,
    /// The optimiser's state to start with; `None` for an empty one.
    pub carried: Option<&'a OptimizerState>,
    /// The global gradient norm to clip to.
    pub clip_norm: Option<f64>,
    /// Factor of `log(Z)²` in the loss.
    pub z_loss: f64,
    /// The dropout's rate and seed.
    pub dropout: Dropout,
    /// Where to keep checkpoints.
    pub checkpoints: Checkpoints,
    /// Which models on the way to keep besides.
    pub kept: Option<Kept>,
    /// What determines the result; checkpoints of another identity are not continued.
    pub identity: Identity,
    /// The lineage of the model to start from.
    pub lineage: &'a Lineage,
    /// What the trained model's lineage records about this run besides its length.
    pub record: Map<String, Value>,
    /// Saved with the weights.
    pub tokenizer: &'a Tokenizer,
    /// Other files that are saved with the weights, by name, such as settings for generation. They replace
    /// what the tokenizer would write.
    pub beside: &'a BTreeMap<String, Vec<u8>>,
}

/// When a checkpoint is due after some minutes; never after 0.
pub fn checkpoint_after(minutes: f64) -> Option<Duration> {
    (minutes > 0.0).then(|| Duration::try_from_secs_f64(60.0 * minutes).ok()).flatten()
}

impl Job<'_> {
    /// A session, and the state in the checkpoint from which it continues.
    fn resume<S: DeserializeOwned>(
        &self,
        open: &mut OpenSession<'_>,
        control: &Control<'_>,
    ) -> Result<(Box<dyn Session>, Option<S>)> {
        let mut open = |path: Option<&Path>| {
            let mut session = open(path).map_err(TrainError::Open)?;
            if let Some(group) = control.group() {
                session.join(group.clone())?;
            }
            Ok::<_, TrainError>(session)
        };
        let Some(path) = control.first(|| self.checkpoints.newest())? else {
            let mut session = open(None)?;
            if let Some(carried) = self.carried {
                session.load_optimizer_state(carried.load()?)?;
            }
            return Ok((session, None));
        };
        let damaged = |error| self.checkpoints.damaged(&path, error);
        let saved = Saved::read(&path).map_err(damaged)?;
        // Checked before the weights are read, so that the answer comes at once.
        self.identity.check(&saved.identity, &path)?;
        let moments = saved.verify(&path).map_err(damaged)?;
        let mut session = open(Some(&path))?;
        session.load_optimizer_state(moments)?;
        Ok((session, Some(saved.state)))
    }

    /// The number of updates behind the optimiser's state after `step` steps of this run.
    fn optimizer_step(&self, step: u64) -> u64 {
        self.carried.map_or(0, OptimizerState::step).saturating_add(step)
    }
}

/// A training run in progress.
pub struct Training<'a, R: Regime> {
    job: Job<'a>,
    session: Box<dyn Session>,
    /// Its current state.
    pub at: Standing<R::Measured>,
    /// The state in the newest checkpoint.
    saved: Option<Standing<R::Measured>>,
    /// When it was opened or saved last.
    saved_at: Instant,
    begun: Begun,
    /// What is specific to this kind of training.
    pub regime: R,
    observer: &'a mut Observer<'a, R::Evaluation>,
    control: &'a Control<'a>,
}

/// Updates given to the device whose results have not been read.
#[derive(Default)]
struct Begun {
    updates: Vec<BegunUpdate>,
    /// When the first of them started.
    since: Option<Instant>,
}

struct BegunUpdate {
    step: u64,
    tokens: u64,
    learning_rate: f64,
}

impl<'a, R: Regime> Training<'a, R> {
    /// Opens the newest checkpoint, or the model to start from if there is none; `begin` opens everything else. The
    /// training stops early once `control` says so.
    ///
    /// # Errors
    /// If a checkpoint is damaged or has another identity, a model cannot be opened, or `begin` fails.
    pub fn open(
        job: Job<'a>,
        open_session: &mut OpenSession<'_>,
        begin: impl FnOnce(&mut Standing<R::Measured>) -> Result<R, R::Error>,
        observer: &'a mut Observer<'a, R::Evaluation>,
        control: &'a Control<'a>,
    ) -> Result<Self, R::Error> {
        let (session, saved) = job.resume(open_session, control)?;
        let mut at: Standing<R::Measured> = saved.clone().unwrap_or_default();
        let regime = begin(&mut at)?;
        let step = at.progress.step;
        if let (Some(_), Some(checkpoint)) = (&saved, &job.checkpoints.path(step)) {
            observer(Event::Resumed { checkpoint, step, missing_metrics: regime.missing_metrics() });
        }
        let saved_at = Instant::now();
        Ok(Training { job, session, at, saved, saved_at, begun: Begun::default(), regime, observer, control })
    }

    /// Trains to the end, or until it is stopped; then it finishes the current update and writes a
    /// checkpoint. Returns false if it was stopped.
    ///
    /// # Errors
    /// Whatever goes wrong; checkpoints written earlier stay intact.
    pub fn run(&mut self) -> Result<bool, R::Error> {
        let Job { steps, evaluate_every, evaluate_first, checkpoint_every, .. } = self.job;
        loop {
            let step = self.at.progress.step;
            let last = step >= steps;
            let due = last || (step.is_multiple_of(evaluate_every) && (step > 0 || evaluate_first));
            let evaluated = !due || self.evaluate()?;
            if evaluated && !last {
                self.keep()?;
            }
            let ended = evaluated && (last || self.regime.ends_early(&self.at));
            if ended && self.regime.conclude(self.session.as_mut())? {
                return Ok(true);
            }
            let in_time = self.job.checkpoint_after.is_some_and(|after| self.saved_at.elapsed() >= after);
            let in_time = in_time && self.control.writes();
            let agreed = self.control.stopped_or(in_time);
            let (stopped, in_time) = agreed.map_err(|error| self.failed(step, error.into()))?;
            let stopped = !evaluated || ended || stopped;
            if stopped || (step > 0 && (in_time || step.is_multiple_of(checkpoint_every))) {
                self.checkpoint()?;
            }
            if stopped {
                return Ok(false);
            }
            self.update()?;
        }
    }

    /// Saves the model as it is now, with the run's state and, if requested, the optimiser's moments, if this
    /// process writes files.
    ///
    /// # Errors
    /// If weights are not finite, or the files cannot be written.
    pub fn save(&mut self, path: &Path, with_optimizer: bool) -> Result<(), R::Error> {
        let start = Instant::now();
        // Where each process has a share of it, all of them take part.
        let shared = self.control.group().is_some_and(|group| group.options().shard_optimizer);
        let wanted = with_optimizer && (shared || self.control.writes());
        let moments = wanted.then(|| self.session.optimizer_state()).transpose();
        let moments = moments.map_err(TrainError::from)?;
        if !self.control.writes() {
            return Ok(());
        }
        self.regime.sync()?;
        self.save_with(&self.at, path, moments)?;
        let (step, seconds) = (self.at.progress.step, start.elapsed().as_secs_f64());
        (self.observer)(Event::CheckpointWritten { path, step, seconds });
        Ok(())
    }

    /// Saves the model as it is now, with `state` in place of the run's and perhaps the optimiser's moments,
    /// whichever process this is.
    ///
    /// # Errors
    /// The same as [`Training::save`].
    pub fn save_with(
        &self,
        state: &impl Serialize,
        path: &Path,
        moments: Option<HostTensors>,
    ) -> Result<(), TrainError> {
        let (job, progress) = (&self.job, self.at.progress);
        let snapshot = Snapshot {
            state,
            identity: &job.identity,
            lineage: progress.lineage(job.lineage, job.identity.fingerprint(), &job.record),
            tokenizer: job.tokenizer,
            beside: job.beside,
            optimizer: moments.map(|moments| (job.optimizer, job.optimizer_step(progress.step), moments)),
        };
        snapshot.write(self.session.as_ref(), path).map_err(|source| TrainError::Save {
            step: progress.step,
            source: Box::new(source),
            intact: self.intact(),
        })
    }

    /// The directory for this step's checkpoint.
    pub(super) fn checkpoint_of_step(&self) -> Option<PathBuf> {
        self.job.checkpoints.path(self.at.progress.step)
    }

    fn intact(&self) -> Intact {
        Intact(self.saved.as_ref().and_then(|at| self.job.checkpoints.path(at.progress.step)))
    }

    fn update(&mut self) -> Result<(), R::Error> {
        self.begun.since.get_or_insert_with(Instant::now);
        let step = self.at.progress.step + 1;
        let batches = self.regime.batches(&mut self.at, step)?;
        let job = &self.job;
        let update = Update {
            optimizer: job.optimizer,
            learning_rate: self.regime.learning_rate(step),
            step,
            optimizer_step: job.optimizer_step(step),
            clip_norm: job.clip_norm,
            z_loss: job.z_loss,
            dropout: job.dropout,
        };
        let begun = self.session.begin_step(&batches, &update);
        begun.map_err(|source| self.failed(step, source))?;

        let progress = &mut self.at.progress;
        let before = progress.tokens;
        let tokens = |batch: &Batch| batch.input_tokens() + batch.target_tokens();
        progress.tokens += batches.iter().map(tokens).sum::<u64>();
        // The lengths of the whole batch: what an update costs does not depend on how it is cut.
        let longest = |length: fn(&Batch) -> usize| batches.iter().map(length).max().unwrap_or(0);
        let (input, target) = (longest(|batch| batch.input_length), longest(|batch| batch.target_length));
        let each = training_flops_per_token(self.session.config(), input, target);
        progress.flops += each * (progress.tokens - before) as f64;
        progress.step = step;
        let (tokens, learning_rate) = (progress.tokens - before, update.learning_rate);
        self.begun.updates.push(BegunUpdate { step, tokens, learning_rate });
        let waited = self.begun.since.is_some_and(|since| since.elapsed() >= PATIENCE);
        let log = step.is_multiple_of(self.job.log_every) || step == self.job.steps;
        if log || waited || !self.session.is_asynchronous() {
            self.collect()?;
        }
        if log { self.regime.log(&mut self.at) } else { Ok(()) }
    }

    /// Waits for the updates that have started, and passes on their results.
    fn collect(&mut self) -> Result<(), R::Error> {
        let Begun { updates, since } = std::mem::take(&mut self.begun);
        let Some(first) = updates.first() else { return Ok(()) };
        let results = self.session.finish_steps().map_err(|source| self.failed(first.step, source))?;
        if let Some(communication) = self.session.communication() {
            self.regime.communicated(&mut self.at, communication);
        }
        // An asynchronous device does not report how long each update took.
        let elapsed = since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        let seconds = elapsed / updates.len() as f64;
        for (BegunUpdate { step, tokens, learning_rate }, result) in updates.into_iter().zip(results) {
            self.regime.updated(&mut self.at, &result, tokens, seconds);
            (self.observer)(Event::Step {
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

    /// Evaluates, unless that has already been done at this step. Returns false if it was stopped.
    fn evaluate(&mut self) -> Result<bool, R::Error> {
        self.collect()?;
        if self.regime.is_evaluated(&self.at) {
            return Ok(true);
        }
        let (start, step) = (Instant::now(), self.at.progress.step);
        let progress = &mut |done, of| (self.observer)(Event::Evaluating { step, done, of });
        let evaluated = self.regime.evaluate(&mut self.at, self.session.as_mut(), progress);
        let evaluated =
            evaluated.map_err(|error| self.regime.evaluation_failed(error, step, self.intact()))?;
        let Some(evaluations) = evaluated else { return Ok(false) };
        let seconds = start.elapsed().as_secs_f64();
        for evaluation in &evaluations {
            (self.observer)(Event::Evaluated { step, evaluation, seconds });
        }
        Ok(true)
    }

    /// Keeps the model of this step, if that is wanted and it is not there yet.
    fn keep(&mut self) -> Result<(), R::Error> {
        let Some(kept) = &self.job.kept else { return Ok(()) };
        let (path, with_optimizer) = (kept.path(self.at.progress.step), kept.with_optimizer);
        let is_there = |path: &PathBuf| {
            let saved = Saved::<Standing<R::Measured>>::read(path);
            saved.is_ok_and(|saved| {
                self.job.identity.check(&saved.identity, path).is_ok()
                    && saved.has_optimizer() >= with_optimizer
            })
        };
        let Some(path) = path else { return Ok(()) };
        if self.control.first(|| Ok::<_, TrainError>(is_there(&path)))? {
            return Ok(());
        }
        self.save(&path, with_optimizer)
    }

    /// Writes a checkpoint, unless the newest already holds this state.
    fn checkpoint(&mut self) -> Result<(), R::Error> {
        self.collect()?;
        let Some(path) = self.checkpoint_of_step().filter(|_| self.saved.as_ref() != Some(&self.at)) else {
            return Ok(());
        };
        self.save(&path, true)?;
        self.saved = Some(self.at.clone());
        self.saved_at = Instant::now();
        match self.control.writes() {
            true => Ok(self.job.checkpoints.prune()?),
            false => Ok(()),
        }
    }
}
