//! What a particular kind of training supplies to the shared loop, and what the loop reports to its caller.

use std::path::Path;

use fusion_core::lineage::{Lineage, Training as Record};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Intact, TrainError};
use crate::backend::Communication;
use crate::text::DataPosition;
use crate::{Batch, Session, TrainStep};

/// One kind of training: which batches it trains on, at which learning rate, and how it evaluates the model.
pub trait Regime {
    /// What such training measures and must remember.
    type Measured: Clone + Default + PartialEq + Serialize + DeserializeOwned;
    /// The result of an evaluation.
    type Evaluation;
    /// Possible errors, including those of the loop.
    type Error: From<TrainError>;

    /// The micro-batches of an update, counted from 1.
    ///
    /// # Errors
    /// If the data cannot be read or does not suffice.
    fn batches(&mut self, at: &mut Standing<Self::Measured>, step: u64) -> Result<Vec<Batch>, Self::Error>;

    /// The learning rate of an update, counted from 1.
    fn learning_rate(&self, step: u64) -> f64;

    /// Records the outcome of an update. `tokens` counts inputs and targets; `seconds` is how long it took.
    fn updated(&mut self, at: &mut Standing<Self::Measured>, result: &TrainStep, tokens: u64, seconds: f64);

    /// Records what updates have exchanged with other processes.
    fn communicated(&mut self, _at: &mut Standing<Self::Measured>, _communication: Communication) {}

    /// Logs the updates recorded since the last call.
    ///
    /// # Errors
    /// If the log cannot be written.
    fn log(&mut self, at: &mut Standing<Self::Measured>) -> Result<(), Self::Error>;

    /// Whether the model at this step has been evaluated.
    fn is_evaluated(&self, at: &Standing<Self::Measured>) -> bool;

    /// Evaluates the model, records the results and returns them; `None` if it was stopped. `progress`
    /// receives how much is done, and out of how much.
    ///
    /// # Errors
    /// Whatever prevents the model from being evaluated.
    fn evaluate(
        &mut self,
        at: &mut Standing<Self::Measured>,
        session: &mut dyn Session,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Option<Vec<Self::Evaluation>>, Self::Error>;

    /// Adds to an error of [`Regime::evaluate`] the step at which it happened, and which checkpoint is
    /// intact.
    fn evaluation_failed(&self, error: Self::Error, _step: u64, _intact: Intact) -> Self::Error {
        error
    }

    /// Whether training ends after this evaluation, before its last step.
    fn ends_early(&self, _at: &Standing<Self::Measured>) -> bool {
        false
    }

    /// Does what remains to be done with the model of the last step. Returns false if it was stopped.
    ///
    /// # Errors
    /// Whatever prevents it from being done.
    fn conclude(&mut self, _session: &mut dyn Session) -> Result<bool, Self::Error> {
        Ok(true)
    }

    /// The number of metrics lines that the checkpoint counts but the log has lost.
    fn missing_metrics(&self) -> u64 {
        0
    }

    /// Waits until everything logged so far is on disk; called before a checkpoint that relies on it.
    ///
    /// # Errors
    /// If the disk fails.
    fn sync(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The state of a training run after an update: what a checkpoint holds besides the model and the optimiser's
/// moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing<M> {
    /// How far it has progressed.
    #[serde(flatten)]
    pub progress: Progress,
    /// What it has measured so far.
    #[serde(flatten)]
    pub measured: M,
}

/// How far a training run has progressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates of the weights.
    pub step: u64,
    /// Where the data continues, if it is a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<DataPosition>,
    /// Input and target tokens trained on.
    pub tokens: u64,
    /// Floating-point operations spent.
    pub flops: f64,
}

impl Progress {
    /// The model's lineage after this training run, given the lineage it started with. `run` tells the run from
    /// others; `other` is recorded along with the run's length.
    pub(super) fn lineage(self, start: &Lineage, run: String, other: &Map<String, Value>) -> Lineage {
        let Progress { step: steps, tokens, flops, .. } = self;
        let mut lineage = start.clone();
        if steps > 0 {
            lineage.training.push(Record { steps, tokens, flops, run: Some(run), other: other.clone() });
        }
        lineage
    }
}

/// What a waiting caller is told. `E` is an evaluation of this kind of training.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a, E> {
    /// Training continues from a checkpoint.
    Resumed {
        /// Its directory.
        checkpoint: &'a Path,
        /// The number of updates it includes.
        step: u64,
        /// The number of metrics lines written before the checkpoint that are missing.
        missing_metrics: u64,
    },
    /// One update is complete.
    Step {
        /// Counted from 1.
        step: u64,
        /// Mean cross-entropy of the target tokens in nats, without z-loss.
        loss: f64,
        /// Share of target tokens predicted correctly.
        accuracy: f64,
        /// The norm of all gradients together, before clipping.
        gradient_norm: f64,
        /// The learning rate of this update.
        learning_rate: f64,
        /// Input and target tokens of this update.
        tokens: u64,
        /// How long it took; a mean if the device is asynchronous.
        seconds: f64,
    },
    /// An evaluation is in progress.
    Evaluating {
        /// Updates so far.
        step: u64,
        /// Examples evaluated so far.
        done: usize,
        /// The total number of examples to evaluate.
        of: usize,
    },
    /// An evaluation is complete.
    Evaluated {
        /// Updates so far.
        step: u64,
        /// Its result.
        evaluation: &'a E,
        /// How long all evaluations at this step took together.
        seconds: f64,
    },
    /// A checkpoint is on disk.
    CheckpointWritten {
        /// Its directory.
        path: &'a Path,
        /// The number of updates it includes.
        step: u64,
        /// How long it took.
        seconds: f64,
    },
}
