//! Pretraining as a [`Regime`]: span corruption on a stream of text, loss and accuracy on held-out text.

use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::evaluate::{EvaluationPoint, evaluate_unless};
use super::metrics::{Metrics, MetricsFile, Window};
use super::settings::Settings;
use crate::text::{self, DataPosition, SpanCorruptionStream};
use crate::train::error::{Intact, Result, TrainError};
use crate::train::regime::{Progress, Regime, State};
use crate::{Batch, Session, TensorBoard, TrainStep};

/// Where a pretraining stands after an update.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PretrainingState {
    step: u64,
    /// Of the next update's first example.
    pub position: DataPosition,
    tokens: u64,
    flops: f64,
    pub evaluations: Vec<EvaluationPoint>,
    /// Updates since the last line of metrics.
    window: Window,
    /// Lines of metrics written so far.
    pub metrics_lines: u64,
}

impl State for PretrainingState {
    fn progress(&self) -> Progress {
        let PretrainingState { step, tokens, flops, .. } = *self;
        Progress { step, tokens, flops }
    }

    fn set_progress(&mut self, progress: Progress) {
        Progress { step: self.step, tokens: self.tokens, flops: self.flops } = progress;
    }

    fn is_evaluated(&self) -> bool {
        self.evaluations.last().is_some_and(|point| point.step == self.step)
    }
}

/// Opens the evaluation text at its beginning.
pub type OpenEvaluationText<'a> = dyn FnMut() -> text::Result<SpanCorruptionStream> + 'a;

/// What a pretraining reads and writes.
pub(super) struct Pretraining<'a> {
    pub settings: &'a Settings,
    pub text: SpanCorruptionStream,
    pub open_evaluation_text: &'a mut OpenEvaluationText<'a>,
    pub metrics: MetricsFile,
    pub board: TensorBoard,
    pub stop: &'a AtomicBool,
}

impl Pretraining<'_> {
    fn record(&mut self, state: &mut PretrainingState, metrics: &Metrics) -> Result<()> {
        self.metrics.append(metrics)?;
        state.metrics_lines += 1;
        Ok(self.board.append(metrics.step(), metrics.scalars())?)
    }
}

impl Regime for Pretraining<'_> {
    type State = PretrainingState;
    type Evaluation = EvaluationPoint;
    type Error = TrainError;

    fn batches(&mut self, state: &mut PretrainingState, step: u64) -> Result<Vec<Batch>> {
        let expected = self.settings.micro_batch_size();
        let mut batches = Vec::new();
        for _ in 0..self.settings.accumulation() {
            let next = self.text.next().transpose()?.ok_or(TrainError::EndOfText { step })?;
            if next.batch.size != expected {
                return Err(TrainError::BatchSize { found: next.batch.size, expected });
            }
            state.position = next.position;
            batches.push(next.batch);
        }
        Ok(batches)
    }

    fn learning_rate(&self, step: u64) -> f64 {
        self.settings.schedule.rate(step - 1, self.settings.steps)
    }

    fn updated(&mut self, state: &mut PretrainingState, result: &TrainStep, tokens: u64, seconds: f64) {
        state.window.add(result, tokens, seconds);
    }

    fn log(&mut self, state: &mut PretrainingState) -> Result<()> {
        let window = std::mem::take(&mut state.window);
        let metrics = window.metrics(state.progress(), self.learning_rate(state.step));
        self.record(state, &metrics)
    }

    fn evaluate(
        &mut self,
        state: &mut PretrainingState,
        session: &mut dyn Session,
        _: &mut dyn FnMut(usize, usize),
    ) -> Result<Option<Vec<EvaluationPoint>>> {
        let text = (self.open_evaluation_text)()?;
        let limit = self.settings.evaluation_batches;
        let Some(evaluation) = evaluate_unless(session, text, limit, self.stop)? else { return Ok(None) };
        let Progress { step, tokens, flops } = state.progress();
        let (loss, accuracy) = (evaluation.loss(), evaluation.accuracy());
        let point = EvaluationPoint { step, tokens, flops, loss, accuracy };
        state.evaluations.push(point);
        self.record(state, &Metrics::Evaluation(point))?;
        Ok(Some(vec![point]))
    }

    fn evaluation_failed(&self, error: TrainError, step: u64, intact: Intact) -> TrainError {
        TrainError::Evaluate { step, source: Box::new(error), intact }
    }

    fn sync(&mut self) -> Result<()> {
        self.metrics.sync()
    }
}
