//! Updates between their beginning and the reading of their results.

use super::{Pending, SessionError, TokenLoss, TrainStep};

/// An update whose results have not been asked for.
pub(super) enum Begun {
    Done(OwnStep),
    Running(RunningStep),
}

/// An update that an asynchronous device may still be computing.
pub(super) struct RunningStep {
    pub step: u64,
    pub tokens: u64,
    /// Of each of this process's micro-batches.
    pub losses: Vec<Pending<Vec<TokenLoss>>>,
    pub gradient_norm: Pending<f64>,
}

/// What this process knows of an update.
pub(super) struct OwnStep {
    pub step: u64,
    /// Target tokens of the whole batch.
    pub tokens: u64,
    /// Sums over this process's tokens: the loss, and how many are predicted right.
    pub sums: (f64, u64),
    /// Of the whole batch.
    pub gradient_norm: f64,
}

impl RunningStep {
    pub fn wait(self) -> OwnStep {
        let RunningStep { step, tokens, losses, gradient_norm } = self;
        let (mut loss, mut correct) = (0.0, 0);
        for token in losses.into_iter().flat_map(Pending::read) {
            loss += token.loss;
            correct += u64::from(token.correct);
        }
        OwnStep { step, tokens, sums: (loss, correct), gradient_norm: gradient_norm.read() }
    }
}

impl Begun {
    pub fn wait(self) -> OwnStep {
        match self {
            Begun::Done(step) => step,
            Begun::Running(step) => step.wait(),
        }
    }
}

impl OwnStep {
    /// The result, given the sums of all processes.
    pub fn finish(self, sums: impl Iterator<Item = (f64, u64)>) -> Result<TrainStep, SessionError> {
        let OwnStep { step, tokens, gradient_norm, .. } = self;
        let (loss, correct) = sums.fold((0.0, 0), |all, own| (all.0 + own.0, all.1 + own.1));
        let loss = loss / tokens as f64;
        match loss.is_finite() && gradient_norm.is_finite() {
            true => Ok(TrainStep { loss, correct, tokens, gradient_norm }),
            false => Err(SessionError::NonFinite { step, loss, gradient_norm }),
        }
    }
}
