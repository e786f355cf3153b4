//! A model on a device, behind an interface that names no framework.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use fusion_core::{HostTensor, HostTensors};

use super::{GroupError, ProcessGroup, TokenLoss};
use crate::optimizer::{ParameterUpdate, Role};
use crate::{Answer, Batch, Decoding, Error, Optimizer, Probe, T5Config};

/// Why a session did not do what it was asked to. The model is as it was before.
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
    /// Processes that compute together do not answer each other.
    #[error(transparent)]
    Group(#[from] GroupError),
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
    /// The number of the update, from 1. Dropout depends on it.
    pub step: u64,
    /// The number of the update since the optimiser's state was empty, from 1. Bias corrections and decays
    /// depend on it.
    pub optimizer_step: u64,
    /// The largest norm of all gradients together; larger gradients are scaled down to it.
    pub clip_norm: Option<f64>,
    /// Coefficient of the z-loss: see [`CrossEntropy::z_loss`](crate::backend::CrossEntropy::z_loss).
    pub z_loss: f64,
    /// Dropout of activations and attention probabilities.
    pub dropout: Dropout,
}

impl Update {
    /// The update of one parameter, given the norm of all gradients together.
    pub fn of_parameter(&self, gradient_norm: f64, role: Role) -> ParameterUpdate {
        let clip = self.clip_norm.map_or(1.0, |limit| (limit / (gradient_norm + 1e-6)).min(1.0));
        ParameterUpdate {
            optimizer: self.optimizer,
            learning_rate: self.learning_rate,
            step: self.optimizer_step,
            gradient_scale: clip as f32,
            role,
        }
    }
}

/// The results of a training step, before its update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrainStep {
    /// Mean cross-entropy of the target tokens in nats, without z-loss.
    pub loss: f64,
    /// Target tokens whose most likely prediction is right.
    pub correct: u64,
    /// Target tokens.
    pub tokens: u64,
    /// The norm of all gradients together, before clipping.
    pub gradient_norm: f64,
}

/// What a process has exchanged with others, and how long it waited for that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Communication {
    /// Bytes that it gave.
    pub bytes: u64,
    /// Time in which it did nothing else.
    pub seconds: f64,
}

impl Communication {
    /// Adds an exchange that began then and has just ended.
    pub(super) fn add(&mut self, bytes: usize, since: Instant) {
        self.bytes += bytes as u64;
        self.seconds += since.elapsed().as_secs_f64();
    }
}

/// The predictions of a model for a batch.
#[derive(Clone, Debug, Default)]
pub struct Forward {
    /// `[batch, target, vocabulary]`.
    pub logits: HostTensor,
    /// Mean cross-entropy of the target tokens.
    pub loss: f64,
    /// By parameter, if they were asked for.
    pub gradients: BTreeMap<String, HostTensor>,
}

/// A model on a device, with its optimiser's state.
pub trait Session {
    /// The configuration of the model.
    fn config(&self) -> &T5Config;

    /// Computes together with the sessions that the other processes of a group have opened with the same
    /// weights. From now on each is given the same batches, and computes its share of the examples; all have
    /// the same results.
    ///
    /// # Errors
    /// The session computes by itself only; that is the default.
    fn join(&mut self, _group: Arc<dyn ProcessGroup>) -> Result<(), SessionError> {
        Err(SessionError::Device("it computes by itself only".into()))
    }

    /// Begins one update from the mean loss over all target tokens of the micro-batches together. Where the
    /// device is [asynchronous](Session::is_asynchronous) the update may still be running when this returns,
    /// and a failure may surface only in [`Session::finish_steps`].
    fn begin_step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<(), SessionError>;

    /// The results of the updates begun since the last call, in order. Waits for the device.
    ///
    /// # Errors
    /// The first update whose loss or gradient is not finite. That update and those begun after it left the
    /// weights unchanged.
    fn finish_steps(&mut self) -> Result<Vec<TrainStep>, SessionError>;

    /// One update, from beginning to end.
    fn train_step(&mut self, micro_batches: &[Batch], update: &Update) -> Result<TrainStep, SessionError> {
        self.begin_step(micro_batches, update)?;
        Ok(self.finish_steps()?.pop().unwrap_or_default())
    }

    /// What the updates since the last call have exchanged with other processes; `None` without a group.
    fn communication(&mut self) -> Option<Communication> {
        None
    }

    /// Whether updates run while the host does something else, so that asking for their results means
    /// waiting.
    fn is_asynchronous(&self) -> bool {
        false
    }

    /// The loss of each label of a batch, `[size, target_length]` row by row, without dropout.
    fn evaluate(&mut self, batch: &Batch) -> Result<Vec<TokenLoss>, SessionError>;

    /// Logits and loss of a batch without dropout, and on request the gradient of every parameter.
    fn forward(&mut self, batch: &Batch, gradients: bool) -> Result<Forward, SessionError>;

    /// The activations of a batch at some places, `[batch, length, width]` each. Places that the model does
    /// not have are ignored.
    ///
    /// # Errors
    /// The session does not show its activations; that is the default.
    fn activations(
        &mut self,
        _batch: &Batch,
        _probes: &[Probe],
    ) -> Result<BTreeMap<Probe, HostTensor>, SessionError> {
        Err(SessionError::Device("it does not show its activations".into()))
    }

    /// Greedy decoding of each row, up to but excluding the token that ends it. A row also ends once `stop`
    /// accepts its tokens so far, which then include the last one. Rows do not influence each other.
    fn generate(
        &mut self,
        batch: &Batch,
        decoding: &Decoding,
        stop: &dyn Fn(&[i32]) -> bool,
    ) -> Result<Vec<Vec<i32>>, SessionError>;

    /// Answers to each row, `[row][answer]`: in the order in which they were drawn, or the best first. Draws
    /// depend on the number of the batch's first input, so that an input's answers do not depend on how
    /// inputs are divided into batches.
    fn answers(
        &mut self,
        _batch: &Batch,
        _how: &Decoding,
        _first_input: u64,
    ) -> Result<Vec<Vec<Answer>>, SessionError> {
        Err(SessionError::Device("it neither draws nor searches for answers".into()))
    }

    /// The log probability of each candidate given each row's inputs, `[row][candidate]`, in nats: the sum
    /// over its tokens, including the end-of-sequence token if the candidate has it.
    fn log_likelihoods(
        &mut self,
        _batch: &Batch,
        _candidates: &[Vec<i32>],
    ) -> Result<Vec<Vec<f64>>, SessionError> {
        Err(SessionError::Device("it does not rank answers".into()))
    }

    /// The weights, by Hugging Face's names.
    fn export(&self) -> Result<HostTensors, SessionError>;

    /// The optimiser's moments as `<parameter>.<moment>`; empty before the first update.
    fn optimizer_state(&self) -> Result<HostTensors, SessionError>;

    /// Replaces the moments with those that [`Session::optimizer_state`] returned.
    fn load_optimizer_state(&mut self, state: HostTensors) -> Result<(), SessionError>;
}
