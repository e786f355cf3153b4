//! Pretraining as a [`Regime`]: span corruption on a stream of text, loss and accuracy on held-out text.

use serde::{Deserialize, Serialize};

use super::evaluate::{EvaluationPoint, EvaluationSize, evaluate_unless};
use super::metrics::{Metrics, MetricsFile, Window};
use super::settings::Settings;
use crate::backend::Communication;
use crate::text::{self, ExampleStream};
use crate::train::control::Control;
use crate::train::error::{Intact, Result, TrainError};
use crate::train::regime::{Progress, Regime, Standing};
use crate::{Batch, Session, TensorBoard, TrainStep};

/// What a pretraining run has measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    pub evaluations: Vec<EvaluationPoint>,
    /// Updates since the last line of metrics.
    window: Window,
    /// Lines of metrics written so far.
    pub metrics_lines: u64,
}

/// Opens the evaluation text at its beginning.
pub type OpenEvaluationText<'a> = dyn FnMut() -> text::Result<ExampleStream> + 'a;

/// What a pretraining run reads and writes.
pub(super) struct Pretraining<'a> {
    pub settings: &'a Settings,
    pub text: ExampleStream,
    pub open_evaluation_text: &'a mut OpenEvaluationText<'a>,
    /// Where the process that writes files logs.
    pub logs: Option<Logs>,
    pub missing_metrics: u64,
    pub control: &'a Control<'a>,
}

/// The files that a run logs to.
pub(super) struct Logs {
    pub metrics: MetricsFile,
    pub board: TensorBoard,
}

impl Pretraining<'_> {
    fn record(&mut self, at: &mut Standing<Measured>, metrics: &Metrics) -> Result<()> {
        at.measured.metrics_lines += 1;
        let Some(Logs { metrics: file, board }) = &mut self.logs else { return Ok(()) };
        file.append(metrics)?;
        Ok(board.append(metrics.step(), metrics.scalars())?)
    }
}

impl Regime for Pretraining<'_> {
    type Measured = Measured;
    type Evaluation = EvaluationPoint;
    type Error = TrainError;

    fn batches(&mut self, at: &mut Standing<Measured>, step: u64) -> Result<Vec<Batch>> {
        let expected = self.settings.micro_batch_size();
        let mut batches = Vec::new();
        for _ in 0..self.settings.batch_size / expected {
            let next = self.text.next().transpose()?.ok_or(TrainError::EndOfText { step })?;
            if next.batch.size != expected {
                return Err(TrainError::BatchSize { found: next.batch.size, expected });
            }
            at.progress.position = Some(next.position);
            batches.push(next.batch);
        }
        Ok(batches)
    }

    fn learning_rate(&self, step: u64) -> f64 {
        self.settings.schedule.rate(step - 1, self.settings.steps)
    }

    fn updated(&mut self, at: &mut Standing<Measured>, result: &TrainStep, tokens: u64, seconds: f64) {
        at.measured.window.add(result, tokens, seconds);
    }

    fn communicated(&mut self, at: &mut Standing<Measured>, communication: Communication) {
        at.measured.window.communicated(communication);
    }

    fn log(&mut self, at: &mut Standing<Measured>) -> Result<()> {
        let window = std::mem::take(&mut at.measured.window);
        let metrics = window.metrics(at.progress, self.learning_rate(at.progress.step));
        self.record(at, &metrics)
    }

    fn is_evaluated(&self, at: &Standing<Measured>) -> bool {
        at.measured.evaluations.last().is_some_and(|point| point.step == at.progress.step)
    }

    fn evaluate(
        &mut self,
        at: &mut Standing<Measured>,
        session: &mut dyn Session,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Option<Vec<EvaluationPoint>>> {
        let text = (self.open_evaluation_text)()?;
        let examples = self.settings.evaluation_batches.saturating_mul(self.settings.batch_size as u64);
        let size = EvaluationSize { examples, examples_at_once: self.settings.micro_batch_size() };
        let Some(evaluation) = evaluate_unless(session, text, size, self.control, progress)? else {
            return Ok(None);
        };
        let Progress { step, tokens, flops, .. } = at.progress;
        let point = EvaluationPoint { step, tokens, flops, quality: evaluation.quality };
        at.measured.evaluations.push(point);
        self.record(at, &Metrics::Evaluation(point))?;
        Ok(Some(vec![point]))
    }

    fn evaluation_failed(&self, error: TrainError, step: u64, intact: Intact) -> TrainError {
        TrainError::Evaluate { step, source: Box::new(error), intact }
    }

    fn missing_metrics(&self) -> u64 {
        self.missing_metrics
    }

    fn sync(&mut self) -> Result<()> {
        self.logs.as_ref().map_or(Ok(()), |logs| logs.metrics.sync())
    }
}
