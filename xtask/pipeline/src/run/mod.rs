//! Runs: a directory with one for each stage, what was finished in it, and what will be.

mod execute;
mod forecast;
pub mod journal;
mod lock;
mod run_file;

pub use execute::{Run, State};
pub use forecast::forecasts;
pub use lock::StageLock;
pub use run_file::{RunFile, StageEntry};
