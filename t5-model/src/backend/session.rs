//! A model on a device, behind an interface that names no framework.

use std::collections::BTreeMap;

use fusion_core::{HostTensor, HostTensors};

use crate::optimizer::ParameterUpdate;
use crate::{Batch, Error, Optimizer, Probe, T5Config};

/// Why a step did not happen. The model is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The model, the batch or the device was refused before anything was computed.
    #[error(transparent)]
    Model(#[from] Error),
    /// The loss or the gradient is infinite or not a number; the weights were left as they were.
    #[error(
        "update {step}: the loss is {loss} and the gradient's norm {gradient_norm}; the weights were left as they were. \
         A lower learning rate, a longer warm-up or clipping usually helps"
    )]
    NonFinite {
        /// The update, counted from 1.
        step: u64,
        /// The mean loss.
        loss: f64,
        /// The norm of all gradients together.
        gradient_norm: f64,
    },
    /// The framework panicked or reported a failure, with what it said.
    #[error("the device failed: {0}")]
    Device(String),
    /// The device has no memory left, with what the framework said.
    #[error(
        "the device's memory does not suffice ({0}); a smaller micro_batch_size needs less, and so does computing activations \
         again on the way back (checkpointing)"
    )]
    OutOfMemory(String),
    /// The optimiser's state does not belong to the model.
    #[error("the optimiser's state: {0}")]
    OptimizerState(String),
}

/// Dropout during training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropout {
    /// The probability that an element is dropped.
    pub rate: f64,
    /// Decides, together with the step and the site, which elements are dropped.
    pub seed: u64,
}

/// One update of the weights.
#[derive(Clone, Debug)]
pub struct Update {
    /// The rule that turns gradients into changes.
    pub optimizer: Optimizer,
    /// The factor of the changes.
    pub learning_rate: f64,
    /// Counts from 1; dropout depends on it.
    pub step: u64,
    /// Counts from 1 since the optimiser's state was empty; bias corrections and decays depend on it.
    pub optimizer_step: u64,
    /// The norm that all gradients together are scaled down to.
    pub clip_norm: Option<f64>,
    /// Coefficient of the z-loss: see [`CrossEntropy::z_loss`](crate::backend::CrossEntropy::z_loss).
    pub z_loss: f64,
    /// Dropout of activations and attention probabilities.
    pub dropout: Dropout,
}

impl Update {
    /// The update of one parameter, where the norm of all gradients together is this.
    pub fn of_parameter(&self, gradient_norm: f64, decay: bool) -> ParameterUpdate {
        let clip = self.clip_norm.map_or(1.0, |limit| (limit / (gradient_norm + 1e-6)).min(1.0));
        ParameterUpdate {
            optimizer: self.optimizer,
            learning_rate: self.learning_rate,
            step: self.optimizer_step,
            gradient_scale: clip as f32,
            decay,
        }
    }
}

/// What a training step saw, before its update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrainStep {
    /// Mean cross-entropy of the target tokens in nats, without z-loss.
    pub loss: f64,
    /// Target tokens whose most likely prediction is right.
    pub correct: u64,
    /// Target tokens.
    pub tokens: u64,
    /// Of all gradients together, before clipping.
    pub gradient_norm: f64,
}

/// What a batch's evaluation adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Sum of the target tokens' cross-entropy in nats, without z-loss.
    pub loss_sum: f64,
    /// Target tokens whose most likely prediction is right.
    pub correct: u64,
    /// Target tokens.
    pub tokens: u64,
}

impl Evaluation {
    /// Mean cross-entropy of a token.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.tokens as f64
    }

    /// Share of tokens predicted right.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.tokens as f64
    }
}

impl std::ops::AddAssign for Evaluation {
    fn add_assign(&mut self, other: Evaluation) {
        self.loss_sum += other.loss_sum;
        self.correct += other.correct;
        self.tokens += other.tokens;
    }
}

/// What a model makes of a batch.
#[derive(Clone, Debug, Default)]
pub struct Forward {
    /// `[batch, target, vocabulary]`.
    pub logits: HostTensor,
    /// Mean cross-entropy of the target tokens.
    pub loss: f64,
    /// By parameter, if asked for.
    pub gradients: BTreeMap<String, HostTensor>,
}

/// A model on a device, with its optimiser's state.
pub trait Session {
    /// The configuration of the model.
    fn config(&self) -> &T5Config;

    /// Begins one update from the mean loss over all target tokens of the micro-batches together. Where the device is
    /// [asynchronous](Session::is_asynchronous) it may go on when this returns, and what fails may show only in
    /// [`Session::finish_steps`].
    fn begin_step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<(), SessionError>;

    /// What the updates begun since the last call saw, in order. Waits for the device.
    ///
    /// # Errors
    /// The first update whose loss or gradient is not finite; it and those begun after it left the weights as they were.
    fn finish_steps(&mut self) -> Result<Vec<TrainStep>, SessionError>;

    /// One update from its beginning to its end.
    fn train_step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<TrainStep, SessionError> {
        self.begin_step(micro_batches, update)?;
        Ok(self.finish_steps()?.pop().unwrap_or_default())
    }

    /// Whether updates go on while the host does something else, so that asking for their results costs time.
    fn is_asynchronous(&self) -> bool {
        false
    }

    /// The loss and accuracy of a batch, without dropout.
    fn evaluate(&mut self, batch: &Batch) -> Result<Evaluation, SessionError>;

    /// Logits and loss of a batch without dropout, and on request the gradient of every parameter.
    fn forward(&mut self, batch: &Batch, gradients: bool) -> Result<Forward, SessionError>;

    /// The activations of a batch at some places, `[batch, length, width]` each. Places that the model does not have are
    /// ignored.
    ///
    /// # Errors
    /// The session does not show its activations; that is the default.
    fn activations(
        &mut self,
        batch: &Batch,
        probes: &[Probe],
    ) -> Result<BTreeMap<Probe, HostTensor>, SessionError> {
        let _ = (batch, probes);
        Err(SessionError::Device("it does not show its activations".into()))
    }

    /// Greedy decoding, row by row, up to and without the end of sequence token. A row ends also where `stop` holds of its
    /// tokens so far; the last of these stays. When one row ends changes no other.
    fn generate(
        &mut self,
        batch: &Batch,
        max_new_tokens: usize,
        stop: &dyn Fn(&[i32]) -> bool,
    ) -> Result<Vec<Vec<i32>>, SessionError>;

    /// The log of each candidate's probability after each row's inputs, `[row][candidate]`, in nats: the sum over its tokens,
    /// the end of sequence token among them if the candidate has it.
    fn log_likelihoods(
        &mut self,
        batch: &Batch,
        candidates: &[Vec<i32>],
    ) -> Result<Vec<Vec<f64>>, SessionError> {
        let _ = (batch, candidates);
        Err(SessionError::Device("it does not rank answers".into()))
    }

    /// The weights, by Hugging Face's names.
    fn export(&self) -> Result<HostTensors, SessionError>;

    /// The optimiser's moments as `<parameter>.<moment>`; empty before the first update.
    fn optimizer_state(&self) -> Result<HostTensors, SessionError>;

    /// Replaces the moments by what [`Session::optimizer_state`] gave.
    fn load_optimizer_state(&mut self, state: HostTensors) -> Result<(), SessionError>;
}
