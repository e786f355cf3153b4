//! Runs: a directory with one for each stage, what was finished in it, and what will be.

pub mod execute;
pub mod forecast;
pub mod journal;
mod run_file;

pub use run_file::{RunFile, StageEntry};
