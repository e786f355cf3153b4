//! What the product does: stages and the recipes that connect them, runs and their reports, conversion and
//! export of checkpoints, and the sources of models and data. The caller passes in a backend ([`Compute`]),
//! and follows progress, receives warnings and can stop the work through a [`Watch`]; this crate knows
//! nothing of terminals, flags or particular backends.

#![warn(missing_docs)]

pub mod checkpoint;
mod compute;
pub mod generate;
mod json;
mod located;
mod not_built;
pub mod numbers;
pub mod problems;
pub mod recipe;
pub mod report;
pub mod run;
pub mod sample;
pub mod source;
pub mod stage;
pub mod tokenize;
mod warning;
pub mod watch;

pub use compute::Compute;
pub use json::write_json;
pub use not_built::NotBuilt;
pub use warning::Warning;
pub use watch::{Interrupted, Note, Silent, Stoppable, Watch};
