//! What the product does: stages and the recipes that join them, runs and their reports, conversion and export of
//! checkpoints, and where models and data come from. Whoever calls it hands in a backend ([`Compute`]) and hears of progress
//! and warnings, or asks the work to stop, through a [`Watch`]; this crate knows no terminal, no flags and no backend.

pub mod checkpoint;
mod compute;
mod json;
mod located;
mod not_built;
pub mod numbers;
pub mod problems;
pub mod recipe;
pub mod report;
pub mod run;
pub mod source;
pub mod stage;
mod warning;
pub mod watch;

pub use compute::Compute;
pub use json::write_json;
pub use not_built::NotBuilt;
pub use warning::Warning;
pub use watch::{Interrupted, Note, Silent, Stoppable, Watch};
