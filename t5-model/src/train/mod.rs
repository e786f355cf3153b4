//! Training: from a session, data and settings to a model, by a loop that can be interrupted and resumed at any step.
//!
//! The loop is written once. [`Training`] does what is due at a step: updates, evaluations, checkpoints, logs, and the
//! stop. A [`Regime`] supplies what distinguishes one kind of training from another: batches, learning rate, evaluation,
//! and what a checkpoint must restore ([`Standing`]). Pretraining ([`train`]) is one regime; `glue-eval` has another.
//!
//! A pretraining run owns a directory:
//! - `checkpoints/step-00000500/`: a Hugging Face checkpoint with `lineage.json`, the optimiser's state
//!   (`optimizer.safetensors`, `optimizer.json`) and the state of the run (`training_state.json`). Only the
//!   newest are kept.
//! - `model/`: the same at the end, without the optimiser's state unless the settings request it.
//! - `kept/step-00000500/`: the same for steps that the settings name.
//! - `metrics.jsonl`: one [`Metrics`] per line. `tensorboard/`: the same as curves.
//! - `lock`: held while a process works here.
//!
//! An interrupted run continues from its newest checkpoint. It ends with the same weights, to the last bit if
//! the session is deterministic, and with the same metrics except for times: batches and dropout depend only
//! on seeds and the step. What must stay the same for that is an [`Identity`], stored in every checkpoint.

mod checkpoints;
mod control;
mod error;
mod identity;
mod pretrain;
mod regime;
mod snapshot;
mod tensorboard;
mod training;

pub use checkpoints::{Checkpoints, Kept, kept_model};
pub use control::Control;
pub use error::{Intact, TrainError};
pub use identity::{Changed, Difference, Identity, RENAMED};
pub use pretrain::{
    Evaluation, EvaluationPoint, EvaluationSize, Metrics, OpenEvaluationText, OpenTrainingText, Outcome,
    PretrainingEvent, Quality, Run, Settings, evaluate, objective_of, read_metrics, train,
};
pub use regime::{Event, Progress, Regime, Standing};
pub use tensorboard::TensorBoard;
pub use training::{Job, Observer, OpenSession, Training, checkpoint_after};
