//! Pretraining with a toy model: what a run leaves on disk, and that interruptions change nothing.

mod checkpoints;
mod failures;
mod resume;
mod settings;
#[path = "../text_support/mod.rs"]
mod text_support;
mod toy;
