//! Sessions on a backend of plain loops: the conformance suite, fused models, calibration, and optimiser
//! state carried to a child.

mod answers;
mod calibrate;
mod carry;
mod conformance;
mod evaluate;
mod fusion;
mod goldens;
#[path = "../minimal_backend/mod.rs"]
mod minimal_backend;
mod processes;
#[path = "../text_support/mod.rs"]
mod text_support;
mod unfinished;

use fusion_core::TensorSource;
use t5_model::{Computation, Session, T5Config, backend};

/// A session of the minimal backend.
fn open(config: &T5Config, weights: &dyn TensorSource) -> Box<dyn Session> {
    backend("minimal").unwrap().open(&Computation::on("cpu"), config, weights).unwrap()
}
