//! Pretraining: from a session, text and settings to a checkpoint that can be resumed at any step.
//!
//! A run owns a directory:
//! - `checkpoints/step-00000500/`: a Hugging Face checkpoint with `lineage.json`, and beside it the optimiser's state
//!   (`optimizer.safetensors`, `optimizer.json`) and where the run stood (`training_state.json`). Only the newest are kept.
//! - `model/`: the same at the end, without the optimiser's state unless the settings ask for it.
//! - `metrics.jsonl`: one [`Metrics`] a line. `tensorboard/`: the same as curves.
//! - `lock`: held while a process works here.
//!
//! A run that was interrupted goes on from its newest checkpoint and ends with the same weights, to the last bit where
//! the session computes deterministically, and with the same metrics but for times: batches and dropout depend on
//! nothing but seeds and the step.

mod checkpoints;
mod error;
mod identity;
mod pretrain;
mod regime;
mod snapshot;
mod tensorboard;
mod training;

pub use checkpoints::Checkpoints;
pub use error::{Intact, TrainError};
pub use identity::{Difference, Identity};
pub use pretrain::{
    EvaluationPoint, Metrics, OpenEvaluationText, OpenTrainingText, Outcome, Run, Settings, evaluate,
    read_metrics, train,
};
pub use regime::{Event, Progress, Regime, State};
pub use tensorboard::TensorBoard;
pub use training::{Job, Observer, OpenSession, Training};
