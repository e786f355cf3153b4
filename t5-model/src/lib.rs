//! T5, written once: its configuration and parameter table, its forward pass over the [`Ops`] of a tensor framework,
//! text to batches, optimisers, and the [`Session`] that trains it. Frameworks register themselves as a [`Backend`];
//! this crate names none of them.

mod activation_checkpoints;
mod backend;
mod batch;
mod buckets;
mod calibrate;
mod config;
pub mod conformance;
mod decoder;
mod deviation;
mod error;
mod generate;
mod guard;
mod infer;
mod initialize;
pub mod kernels;
mod method;
mod model;
mod model_session;
mod ops;
pub mod optimizer;
mod packing;
mod rank;
mod schedule;
mod session;
mod t5x;
mod table;
mod tape;
mod tensorboard;
pub mod text;
pub mod train;

pub use backend::{
    Backend, Computation, DeviceInfo, Precision, TrainingMemory, TrainingSize, backend, backends,
};
pub use batch::{Batch, IGNORED_LABEL};
pub use buckets::position_bucket;
pub use calibrate::Calibration;
pub use config::{FeedForward, T5Config};
pub use deviation::{Comparison, Deviation};
pub use error::{Error, Result};
pub use initialize::initialize;
pub use method::{
    Arrangement, DepthAlignment, FusionParent, Grown, HyperClone, Lemon, Method, Net2Net, NewBlocks, Promise,
    Refusal, Stack, Widths, child_config, fusion_plan, hyperclone, lemon, net2net, self_fusion, stack,
};
pub use model::T5;
pub use model_session::ModelSession;
pub use ops::{
    Attention, Buckets, CrossEntropy, DropoutDraw, LossSums, Ops, Pending, Positions, TokenIds, Trained,
    update_each,
};
pub use optimizer::Optimizer;
pub use schedule::{Decay, Schedule};
pub use session::{Dropout, Evaluation, Forward, Session, SessionError, TrainStep, Update};
pub use t5x::{StoredParameter, t5x_parameters};
pub use table::{parameter_table, training_flops_per_token};
pub use tape::{Place, Tape};
pub use tensorboard::TensorBoard;
