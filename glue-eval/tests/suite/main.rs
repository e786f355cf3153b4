//! One test binary, so that the crates below are linked once.

mod bootstrap;
mod check;
mod fine_tune;
mod metrics;
#[cfg(feature = "parquet")]
mod parquet;
mod prompt;
mod score;
mod session;
mod tsv;
