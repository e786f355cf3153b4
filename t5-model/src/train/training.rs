//! The training loop.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::directory::RunDirectory;
use super::error::{Intact, Result, TrainError};
use super::evaluate::{EvaluationPoint, evaluate_unless};
use super::identity::Identity;
use super::metrics::{Metrics, MetricsFile};
use super::progress::{Progress, State};
use super::run::{Event, Outcome, Run};
use super::snapshot::Snapshot;
use crate::text::{DataPosition, SpanCorruptionStream};
use crate::{Batch, Dropout, Session, SessionError, TensorBoard, Update, training_flops_per_token};

/// How long an asynchronous device computes before somebody asks how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Updates that a device has been given and that nobody has asked about.
#[derive(Default)]
pub(super) struct Begun {
    updates: Vec<BegunUpdate>,
    /// When the first of them began.
    since: Option<Instant>,
}

struct BegunUpdate {
    step: u64,
    tokens: u64,
    learning_rate: f64,
}

/// A run under way.
pub(super) struct Training<'a, 'b> {
    pub run: Run<'a>,
    pub identity: Identity,
    pub directory: RunDirectory,
    pub session: Box<dyn Session>,
    pub progress: Progress,
    pub begun: Begun,
    /// What the newest checkpoint holds.
    pub saved: Option<Progress>,
    pub metrics: MetricsFile,
    pub board: TensorBoard,
    pub observer: &'b mut dyn FnMut(Event<'_>),
    pub stop: &'b AtomicBool,
}

impl Training<'_, '_> {
    /// Everything that is due at a step depends on the progress alone, which is what a checkpoint restores.
    pub fn complete(mut self) -> Result<Outcome> {
        let settings = self.run.settings;
        let mut text = (self.run.open_training_text)(self.progress.position)?;
        loop {
            let step = self.progress.step;
            let last = step >= settings.steps;
            let due = last || step.is_multiple_of(settings.evaluate_every);
            if due {
                self.collect()?;
            }
            let evaluated = !due || self.evaluate()?;
            if last && evaluated {
                return self.finish();
            }
            let stopped = !evaluated || self.stop.load(Ordering::Relaxed);
            if stopped || (step > 0 && step.is_multiple_of(settings.checkpoint_every)) {
                self.collect()?;
                self.checkpoint()?;
            }
            if stopped {
                return Ok(Outcome::new(false, self.directory.checkpoint(step), &self.progress));
            }
            self.update(&mut text)?;
        }
    }

    fn intact(&self) -> Intact {
        Intact(self.saved.as_ref().map(|progress| self.directory.checkpoint(progress.step)))
    }

    fn update(&mut self, text: &mut SpanCorruptionStream) -> Result<()> {
        let settings = self.run.settings;
        self.begun.since.get_or_insert_with(Instant::now);
        let step = self.progress.step + 1;
        let (batches, position) = self.batches(text, step)?;
        let update = Update {
            optimizer: settings.optimizer,
            learning_rate: settings.schedule.rate(step - 1, settings.steps),
            step,
            optimizer_step: self.run.carried_steps().saturating_add(step),
            clip_norm: settings.clip_norm(),
            z_loss: settings.z_loss,
            dropout: Dropout { rate: settings.dropout, seed: settings.seed },
        };
        let begun = self.session.begin_step(&batches, &update);
        begun.map_err(|source| self.failed(step, source))?;

        let mut tokens = 0;
        for batch in &batches {
            let batch_tokens = batch.input_tokens() + batch.target_tokens();
            let each =
                training_flops_per_token(self.session.config(), batch.input_length, batch.target_length);
            tokens += batch_tokens;
            self.progress.flops += each * batch_tokens as f64;
        }
        self.progress.step = step;
        self.progress.position = position;
        self.progress.tokens += tokens;
        self.begun.updates.push(BegunUpdate { step, tokens, learning_rate: update.learning_rate });
        let waited = self.begun.since.is_some_and(|since| since.elapsed() >= PATIENCE);
        let log = step.is_multiple_of(settings.log_every) || step == settings.steps;
        if log || waited || !self.session.is_asynchronous() {
            self.collect()?;
        }
        if log {
            let window = std::mem::take(&mut self.progress.window);
            let Progress { tokens, flops, .. } = self.progress;
            self.record(&window.metrics(step, tokens, flops, update.learning_rate))?;
        }
        Ok(())
    }

    /// Waits for the updates that were begun, and tells what they saw.
    fn collect(&mut self) -> Result<()> {
        let Begun { updates, since } = std::mem::take(&mut self.begun);
        let Some(first) = updates.first() else { return Ok(()) };
        let results = self.session.finish_steps().map_err(|source| self.failed(first.step, source))?;
        // An asynchronous device tells no times of single updates.
        let elapsed = since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        let seconds = elapsed / updates.len() as f64;
        for (BegunUpdate { step, tokens, learning_rate }, result) in updates.into_iter().zip(results) {
            self.progress.window.add(&result, tokens, seconds);
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

    /// The micro-batches of an update, and where the text goes on after them.
    fn batches(&self, text: &mut SpanCorruptionStream, step: u64) -> Result<(Vec<Batch>, DataPosition)> {
        let expected = self.run.settings.micro_batch_size();
        let mut batches = Vec::new();
        let mut position = self.progress.position;
        for _ in 0..self.run.settings.accumulation() {
            let next = text.next().transpose()?.ok_or(TrainError::EndOfText { step })?;
            if next.batch.size != expected {
                return Err(TrainError::BatchSize { found: next.batch.size, expected });
            }
            position = next.position;
            batches.push(next.batch);
        }
        Ok((batches, position))
    }

    /// Evaluates, unless that was done at this step already. False if the run was stopped meanwhile.
    fn evaluate(&mut self) -> Result<bool> {
        let Progress { step, tokens, flops, .. } = self.progress;
        if self.progress.evaluations.last().is_some_and(|point| point.step == step) {
            return Ok(true);
        }
        let start = Instant::now();
        let text = (self.run.open_evaluation_text)()?;
        let limit = self.run.settings.evaluation_batches;
        let evaluated = evaluate_unless(self.session.as_mut(), text, limit, self.stop);
        let evaluated = evaluated.map_err(|source| {
            let intact = self.intact();
            TrainError::Evaluate { step, source: Box::new(source), intact }
        })?;
        let Some(evaluation) = evaluated else { return Ok(false) };
        let (loss, accuracy) = (evaluation.loss(), evaluation.accuracy());
        let point = EvaluationPoint { step, tokens, flops, loss, accuracy };
        self.progress.evaluations.push(point);
        (self.observer)(Event::Evaluated { point, seconds: start.elapsed().as_secs_f64() });
        self.record(&Metrics::Evaluation(point))?;
        Ok(true)
    }

    fn record(&mut self, metrics: &Metrics) -> Result<()> {
        self.metrics.append(metrics)?;
        Ok(self.board.append(metrics.step(), metrics.scalars())?)
    }

    /// Writes a checkpoint, unless the newest is of just this.
    fn checkpoint(&mut self) -> Result<()> {
        if self.saved.as_ref() == Some(&self.progress) {
            return Ok(());
        }
        let path = self.directory.checkpoint(self.progress.step);
        self.save(&path, true)?;
        self.saved = Some(self.progress.clone());
        self.directory.prune(self.run.settings.keep_checkpoints)
    }

    fn finish(mut self) -> Result<Outcome> {
        let path = self.directory.model();
        self.save(&path, self.run.settings.keep_optimizer)?;
        Ok(Outcome::new(true, path, &self.progress))
    }

    fn save(&mut self, path: &Path, with_optimizer: bool) -> Result<()> {
        let start = Instant::now();
        let step = self.progress.step;
        let state = State {
            progress: self.progress.clone(),
            metrics_lines: self.metrics.sync()?,
            identity: self.identity.clone(),
        };
        let snapshot = Snapshot {
            state: &state,
            lineage: self.progress.lineage(self.run.lineage),
            tokenizer: self.run.tokenizer,
            optimizer: with_optimizer
                .then(|| (self.run.settings.optimizer, self.run.carried_steps().saturating_add(step))),
        };
        snapshot.write(self.session.as_ref(), path).map_err(|source| TrainError::Save {
            step,
            source: Box::new(source),
            intact: self.intact(),
        })?;
        (self.observer)(Event::CheckpointWritten { path, step, seconds: start.elapsed().as_secs_f64() });
        Ok(())
    }
}
