//! Fine-tuning as a [`Regime`]: batches of examples at a constant rate, answers to the development sets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use t5_model::train::{Regime, Standing, TrainError};
use t5_model::{Batch, Session, TensorBoard, TrainStep};

use super::directory::Keep;
use super::examples::Examples;
use super::outcome::{StepScore, best};
use super::sampling::EpochOrder;
use super::settings::{AtStep, FineTuneSettings};
use crate::answer::{Answering, Prompts};
use crate::data::TaskData;
use crate::error::GlueError;
use crate::score::{Prediction, TaskScore};
use crate::task::Task;

/// What a fine-tuning has measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    evaluations: BTreeMap<Task, Vec<StepScore>>,
    /// Losses of the updates since the last evaluation.
    since_evaluation: RunningMean,
    /// Losses of the updates since the last point of the curves.
    since_log: RunningMean,
}

impl Measured {
    pub fn evaluations(&self, task: Task) -> &[StepScore] {
        self.evaluations.get(&task).map_or(&[], Vec::as_slice)
    }

    fn would_be_best(&self, score: &TaskScore) -> bool {
        let evaluations = self.evaluations(score.task);
        best(evaluations).is_none_or(|best| score.mean() > evaluations[best].score.mean())
    }

    /// Whether so many evaluations in a row have brought no task a better score.
    fn has_stalled(&self, patience: u64) -> bool {
        let since_best =
            self.evaluations.values().filter_map(|scores| Some(scores.len() - 1 - best(scores)?));
        since_best.min().is_some_and(|since| since as u64 >= patience)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct RunningMean {
    sum: f64,
    count: u64,
}

impl RunningMean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// The mean of what was added since the last call.
    fn take(&mut self) -> Option<f64> {
        let RunningMean { sum, count } = std::mem::take(self);
        (count > 0).then(|| sum / count as f64)
    }
}

/// What a fine-tuning reads and writes.
pub(super) struct Tuning<'a> {
    pub tasks: &'a [TaskData],
    pub settings: &'a FineTuneSettings,
    pub examples: Examples<'a>,
    pub order: EpochOrder,
    pub answering: Answering<'a>,
    pub keep: Option<Keep<'a>>,
    pub curves: Option<TensorBoard>,
}

impl Tuning<'_> {
    /// Adds points to the curves, if there are any.
    fn curve(&mut self, step: u64, points: impl IntoIterator<Item = (String, f64)>) -> Result<(), GlueError> {
        let points: Vec<_> = points.into_iter().collect();
        let (Some(curves), false) = (&mut self.curves, points.is_empty()) else { return Ok(()) };
        let points = points.iter().map(|(name, value)| (name.as_str(), *value));
        Ok(curves.append(step, points).map_err(TrainError::from)?)
    }

    /// Answers to each of a task's sets; `None` if it was stopped.
    fn answers(
        &self,
        session: &mut dyn Session,
        sets: &[Prompts<'_>],
        answered: &mut dyn FnMut(usize),
    ) -> Result<Option<Vec<Vec<Prediction>>>, GlueError> {
        sets.iter().map(|prompts| self.answering.answers(session, prompts, answered)).collect()
    }

    /// Answers a task's test sets for GLUE's server, if asked to at this step. False if it was stopped meanwhile.
    fn submit(&self, at: AtStep, session: &mut dyn Session, test: &[Prompts<'_>]) -> Result<bool, GlueError> {
        let wanted = self.keep.filter(|_| self.settings.submission == Some(at));
        let Some(keep) = wanted else { return Ok(true) };
        match self.answers(session, test, &mut |_| {})? {
            Some(sets) if self.answering.control.writes() => keep.submission(test, &sets).map(|()| true),
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }
}

impl Regime for Tuning<'_> {
    type Measured = Measured;
    type Evaluation = TaskScore;
    type Error = GlueError;

    fn batches(&mut self, _: &mut Standing<Measured>, step: u64) -> Result<Vec<Batch>, GlueError> {
        let settings = self.settings;
        let indices = self.order.batch(step, settings.batch_size);
        let examples: Vec<_> =
            indices.iter().filter_map(|&index| self.examples.train.get(index).copied()).collect();
        let encoder = &self.answering.encoder;
        Ok(encoder.micro_batches(&encoder.pairs(&examples)?, settings.micro_batch_size))
    }

    fn learning_rate(&self, _: u64) -> f64 {
        self.settings.learning_rate
    }

    fn updated(&mut self, at: &mut Standing<Measured>, result: &TrainStep, _: u64, _: f64) {
        at.measured.since_evaluation.add(result.loss);
        at.measured.since_log.add(result.loss);
    }

    fn log(&mut self, at: &mut Standing<Measured>) -> Result<(), GlueError> {
        let loss = at.measured.since_log.take().map(|loss| ("train/loss".to_owned(), loss));
        self.curve(at.progress.step, loss)
    }

    fn is_evaluated(&self, at: &Standing<Measured>) -> bool {
        let is_of_step = |score: &StepScore| score.step == at.progress.step;
        let mut evaluations = at.measured.evaluations.values().map(|scores| scores.last());
        !at.measured.evaluations.is_empty() && evaluations.all(|last| last.is_some_and(is_of_step))
    }

    fn evaluate(
        &mut self,
        at: &mut Standing<Measured>,
        session: &mut dyn Session,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Option<Vec<TaskScore>>, GlueError> {
        let of = self.examples.dev_count();
        let mut done = 0;
        let mut scores = Vec::new();
        let examples = &self.examples;
        for ((data, dev), test) in self.tasks.iter().zip(&examples.dev).zip(&examples.test) {
            let answered = &mut |count| {
                done += count;
                progress(done, of);
            };
            let Some(sets) = self.answers(session, dev, answered)? else { return Ok(None) };
            let mut score = TaskScore::new(data.task, &sets);
            score.add_intervals(&sets, self.settings.bootstrap);
            let best = at.measured.would_be_best(&score);
            if let Some(keep) = self.keep.filter(|_| self.answering.control.writes()) {
                keep.predictions(AtStep::Last, dev, &sets)?;
                if best {
                    keep.predictions(AtStep::Best, dev, &sets)?;
                }
            }
            if best && !self.submit(AtStep::Best, session, test)? {
                return Ok(None);
            }
            scores.push(score);
        }
        let (step, train_loss) = (at.progress.step, at.measured.since_evaluation.take());
        for score in &scores {
            self.curve(step, curves(score))?;
            let score = StepScore { step, train_loss, score: score.clone() };
            at.measured.evaluations.entry(score.score.task).or_default().push(score);
        }
        Ok(Some(scores))
    }

    fn ends_early(&self, at: &Standing<Measured>) -> bool {
        self.settings.early_stopping.is_some_and(|patience| at.measured.has_stalled(patience))
    }

    fn conclude(&mut self, session: &mut dyn Session) -> Result<bool, GlueError> {
        for test in &self.examples.test {
            if !self.submit(AtStep::Last, session, test)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What TensorBoard shows of a score.
fn curves(score: &TaskScore) -> Vec<(String, f64)> {
    let name = score.task.spec().name;
    let metrics = score.metrics.iter();
    let metrics = metrics.filter_map(|metric| Some((format!("{name}/{}", metric.name), metric.percent?)));
    metrics.chain([(format!("{name}/invalid"), score.invalid as f64)]).collect()
}
