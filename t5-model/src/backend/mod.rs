//! Tensor frameworks. A framework registers itself as a [`Backend`] and offers T5's operations ([`Ops`]). A
//! [`ModelSession`] over these is the [`Session`] that everything else works with. [`Tape`] and [`kernels`]
//! are for backends to share.

mod computation;
mod data_parallel;
pub mod kernels;
mod model_session;
mod ops;
mod panics;
mod process_group;
mod registry;
mod session;
mod step;
mod tape;

pub use computation::{Computation, ComputeChoice, DeviceInfo, Precision, TrainingMemory, TrainingSize};
pub use model_session::ModelSession;
pub use ops::{
    Attention, Buckets, CrossEntropy, DropoutDraw, Ops, Pending, Positions, TokenIds, TokenLoss, Trained,
    all_reduce_on_host, update_each,
};
pub use process_group::{
    Collective, GroupError, GroupOptions, ProcessGroup, Reducing, Rendezvous, collective,
};
pub use registry::{AnyOps, Backend, backend, backends};
pub use session::{Communication, Dropout, Forward, Session, SessionError, TrainStep, Update};
pub use tape::{Place, Tape};

pub(crate) use panics::guarded;
