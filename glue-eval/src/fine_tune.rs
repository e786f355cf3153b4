//! Fine-tuning a session, on one task or on several mixed.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use t5_model::text::Tokenizer;
use t5_model::{Dropout, Session, TrainStep, Update, training_flops_per_token};

use crate::batch::Encoder;
use crate::error::GlueError;
use crate::evaluate::{Answering, Prompts};
use crate::examples::Examples;
use crate::files::TaskData;
use crate::keep::{Keep, Kept};
use crate::report::{StepScore, TaskReport};
use crate::sampling::EpochOrder;
use crate::score::{Prediction, TaskScore};
use crate::settings::{AtStep, FineTuneSettings};
use crate::state::State;

/// What a caller is told while it waits. `name` is the task, or `mixture`.
#[derive(Debug)]
pub enum Progress<'a> {
    Started { name: &'a str, seed: u64, train_examples: usize, dev_examples: usize, steps: u64 },
    Resumed { step: u64 },
    Trained { step: u64, result: &'a TrainStep },
    Answered { step: u64, done: usize, of: usize },
    Evaluated { step: u64, score: &'a TaskScore },
}

/// Opens the model to fine-tune afresh, or the checkpoint in a directory that a fine-tuning goes on from.
pub type OpenSession<'a> =
    dyn FnMut(Option<&Path>) -> Result<Box<dyn Session>, Box<dyn Error + Send + Sync>> + 'a;

/// One model and what it is fine-tuned on.
pub struct FineTuning<'a> {
    pub tasks: &'a [TaskData],
    pub tokenizer: &'a Tokenizer,
    pub settings: &'a FineTuneSettings,
    /// Of the examples' order and of dropout.
    pub seed: u64,
    /// Where it leaves what it makes, and goes on when it is called again; without, it leaves nothing.
    pub keep: Option<Keep<'a>>,
}

impl FineTuning<'_> {
    /// The task's name, or `mixture` for several.
    pub fn name(&self) -> &'static str {
        match self.tasks {
            [task] => task.task.spec().name,
            _ => "mixture",
        }
    }

    /// Fine-tunes and evaluates on every task's development sets at intervals and at the end. With 0 steps the model
    /// is evaluated as it is. `None` if it was stopped: then a checkpoint is there to go on from.
    ///
    /// # Errors
    /// [`GlueError`]; what was kept before stays whole.
    pub fn run(
        &self,
        open: &mut OpenSession<'_>,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<Vec<TaskReport>>, GlueError> {
        self.settings.check()?;
        let mut kept = self.keep.as_ref().map(|keep| Kept::open(keep, self)).transpose()?;
        if let Some(reports) = kept.as_mut().and_then(Kept::take_finished) {
            return Ok(Some(reports));
        }
        let encoder = Encoder::new(self.tokenizer, self.settings);
        let examples = Examples::of(self.tasks, self.settings, &encoder)?;
        progress(Progress::Started {
            name: self.name(),
            seed: self.seed,
            train_examples: examples.train.len(),
            dev_examples: examples.dev_count(),
            steps: self.settings.steps,
        });
        let failed = |source| GlueError::Open { name: self.name(), source };
        let checkpoint = kept.as_ref().and_then(Kept::checkpoint_to_open);
        let mut session = open(checkpoint).map_err(failed)?;
        let state = match &mut kept {
            Some(kept) => kept.restore(session.as_mut())?,
            None => State::default(),
        };
        if state.step > 0 {
            progress(Progress::Resumed { step: state.step });
        }
        let answering = Answering {
            encoder,
            scoring: self.settings.score,
            batch_size: self.settings.evaluation_batch_size,
            stop,
        };
        let order = EpochOrder::new(examples.train.len(), self.seed);
        Run { tuning: self, examples, answering, session, order, state, kept, progress }.complete()
    }
}

/// A fine-tuning under way.
struct Run<'a, 'b> {
    tuning: &'b FineTuning<'a>,
    examples: Examples<'b>,
    answering: Answering<'b>,
    session: Box<dyn Session>,
    order: EpochOrder,
    state: State,
    kept: Option<Kept<'b>>,
    progress: &'b mut dyn FnMut(Progress<'_>),
}

impl Run<'_, '_> {
    /// What is due at a step depends on the state alone, which is what a checkpoint restores.
    fn complete(mut self) -> Result<Option<Vec<TaskReport>>, GlueError> {
        let settings = self.tuning.settings;
        loop {
            let step = self.state.step;
            let last = step >= settings.steps;
            let due = last || (step > 0 && step.is_multiple_of(settings.evaluate_every));
            let evaluated = !due || self.evaluate()?;
            let ended = evaluated && (last || self.state.ends_early(settings.early_stopping));
            if ended && let Some(reports) = self.finish()? {
                return Ok(Some(reports));
            }
            let stopped = !evaluated || ended || self.answering.stop.load(Ordering::Relaxed);
            if stopped || (step > 0 && step.is_multiple_of(settings.checkpoint_every)) {
                self.checkpoint()?;
            }
            if stopped {
                return Ok(None);
            }
            self.update()?;
        }
    }

    fn update(&mut self) -> Result<(), GlueError> {
        let settings = self.tuning.settings;
        let step = self.state.step + 1;
        let indices = self.order.batch(step, settings.batch_size);
        let examples: Vec<_> =
            indices.iter().filter_map(|&index| self.examples.train.get(index).copied()).collect();
        let encoder = &self.answering.encoder;
        let micro_batches = encoder.micro_batches(&encoder.pairs(&examples)?, settings.micro_batch_size);
        let result = self.session.train_step(&micro_batches, &update(settings, self.tuning.seed, step));
        let result = result.map_err(|source| GlueError::Train {
            name: self.tuning.name(),
            step,
            source: source.into(),
        })?;
        for batch in &micro_batches {
            let tokens = batch.input_tokens() + batch.target_tokens();
            let each =
                training_flops_per_token(self.session.config(), batch.input_length, batch.target_length);
            self.state.tokens += tokens;
            self.state.flops += tokens as f64 * each;
        }
        self.state.step = step;
        self.state.since_evaluation.add(result.loss);
        self.state.since_log.add(result.loss);
        (self.progress)(Progress::Trained { step, result: &result });
        if step.is_multiple_of(settings.log_every) || step == settings.steps {
            let loss = self.state.since_log.take();
            if let (Some(kept), Some(loss)) = (&mut self.kept, loss) {
                kept.curve(step, &[("train/loss".to_owned(), loss)])?;
            }
        }
        Ok(())
    }

    /// Answers every task's development sets, unless that was done at this step already. False if it was stopped
    /// meanwhile.
    fn evaluate(&mut self) -> Result<bool, GlueError> {
        let (step, settings) = (self.state.step, self.tuning.settings);
        if self.state.is_evaluated() {
            return Ok(true);
        }
        let of = self.examples.dev_count();
        let mut done = 0;
        let mut scores = Vec::new();
        for ((data, dev), test) in self.tuning.tasks.iter().zip(&self.examples.dev).zip(&self.examples.test) {
            let answered = &mut |count| {
                done += count;
                (self.progress)(Progress::Answered { step, done, of });
            };
            let Some(sets) = answers(&self.answering, self.session.as_mut(), dev, answered)? else {
                return Ok(false);
            };
            let mut score = TaskScore::new(data.task, &sets);
            score.add_intervals(&sets, settings.bootstrap);
            let best = self.state.would_be_best(&score);
            if let Some(kept) = &self.kept {
                kept.predictions(AtStep::Last, dev, &sets)?;
                if best {
                    kept.predictions(AtStep::Best, dev, &sets)?;
                }
            }
            let submit = best && settings.submission == Some(AtStep::Best);
            if submit && !submit_answers(&self.answering, self.session.as_mut(), &self.kept, test)? {
                return Ok(false);
            }
            scores.push(score);
        }
        let train_loss = self.state.since_evaluation.take();
        for score in scores {
            (self.progress)(Progress::Evaluated { step, score: &score });
            if let Some(kept) = &mut self.kept {
                kept.curve(step, &curves(&score))?;
            }
            self.state.add(StepScore { step, train_loss, score });
        }
        Ok(true)
    }

    fn checkpoint(&mut self) -> Result<(), GlueError> {
        match &mut self.kept {
            Some(kept) => kept.checkpoint(self.session.as_ref(), &self.state),
            None => Ok(()),
        }
    }

    /// `None` if it was stopped meanwhile.
    fn finish(&mut self) -> Result<Option<Vec<TaskReport>>, GlueError> {
        if self.tuning.settings.submission == Some(AtStep::Last) {
            for test in &self.examples.test {
                if !submit_answers(&self.answering, self.session.as_mut(), &self.kept, test)? {
                    return Ok(None);
                }
            }
        }
        let mut reports = Vec::new();
        for (data, examples) in self.tuning.tasks.iter().zip(&self.examples.counts) {
            let evaluations = self.state.evaluations(data.task).to_vec();
            reports.extend(TaskReport::new(data.task, evaluations, examples.clone(), data.skipped));
        }
        if let Some(kept) = &mut self.kept {
            kept.finish(self.session.as_ref(), &self.state, &reports)?;
        }
        Ok(Some(reports))
    }
}

/// Answers to each of a task's sets; `None` if it was stopped.
fn answers(
    answering: &Answering<'_>,
    session: &mut dyn Session,
    sets: &[Prompts<'_>],
    answered: &mut dyn FnMut(usize),
) -> Result<Option<Vec<Vec<Prediction>>>, GlueError> {
    sets.iter().map(|prompts| answering.answers(session, prompts, answered)).collect()
}

/// Answers a task's test sets for GLUE's server. False if it was stopped meanwhile.
fn submit_answers(
    answering: &Answering<'_>,
    session: &mut dyn Session,
    kept: &Option<Kept<'_>>,
    test: &[Prompts<'_>],
) -> Result<bool, GlueError> {
    let Some(kept) = kept else { return Ok(true) };
    match answers(answering, session, test, &mut |_| {})? {
        Some(sets) => kept.submission(test, &sets).map(|()| true),
        None => Ok(false),
    }
}

/// What TensorBoard shows of a score.
fn curves(score: &TaskScore) -> Vec<(String, f64)> {
    let name = score.task.spec().name;
    let metrics = score.metrics.iter();
    let metrics = metrics.filter_map(|metric| Some((format!("{name}/{}", metric.name), metric.percent?)));
    metrics.chain([(format!("{name}/invalid"), score.invalid as f64)]).collect()
}

fn update(settings: &FineTuneSettings, seed: u64, step: u64) -> Update {
    Update {
        optimizer: settings.optimizer,
        learning_rate: settings.learning_rate,
        step,
        optimizer_step: step,
        clip_norm: settings.clip_norm,
        z_loss: settings.z_loss,
        dropout: Dropout { rate: settings.dropout, seed },
    }
}
