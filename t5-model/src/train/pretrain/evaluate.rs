//! A model's loss and accuracy on held-out text.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::text::{self, StreamedBatch};
use crate::train::error::{Result, TrainError};
use crate::{Evaluation, Session};

/// A model's quality at a step, and the cost of getting there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationPoint {
    /// Updates of the weights.
    pub step: u64,
    /// Input and target tokens trained on in this run.
    pub tokens: u64,
    /// Floating-point operations spent in this run.
    pub flops: f64,
    /// Mean cross-entropy of the held-out target tokens in nats, without z-loss.
    pub loss: f64,
    /// Share of target tokens predicted correctly.
    pub accuracy: f64,
}

/// Evaluates a model on the first `max_batches` batches.
///
/// # Errors
/// If the text is empty or cannot be read, or the model's loss is not finite.
pub fn evaluate(
    session: &mut dyn Session,
    batches: impl IntoIterator<Item = text::Result<StreamedBatch>>,
    max_batches: u64,
) -> Result<Evaluation, TrainError> {
    let complete = evaluate_unless(session, batches, max_batches, &AtomicBool::new(false))?;
    complete.ok_or(TrainError::NoEvaluationText)
}

/// Like [`evaluate`]; `None` if it was stopped.
pub(super) fn evaluate_unless(
    session: &mut dyn Session,
    batches: impl IntoIterator<Item = text::Result<StreamedBatch>>,
    max_batches: u64,
    stop: &AtomicBool,
) -> Result<Option<Evaluation>> {
    let mut total = Evaluation::default();
    let mut batches = batches.into_iter();
    for _ in 0..max_batches {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(StreamedBatch { batch, .. }) = batches.next().transpose()? else { break };
        total += session.evaluate(&batch)?;
    }
    if total.tokens == 0 {
        return Err(TrainError::NoEvaluationText);
    }
    if !total.loss_sum.is_finite() {
        return Err(TrainError::NonFiniteEvaluation);
    }
    Ok(Some(total))
}
