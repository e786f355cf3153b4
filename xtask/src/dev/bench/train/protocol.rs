//! What `bench train` and its workers say to each other besides.
//!
//! `xtask/src/dev/bench/scripts/bench_transformers.py` speaks it too.

use serde::{Deserialize, Serialize};

/// Untimed steps of a worker before it is ready.
pub const WARM_UP: u32 = 3;

/// The request for a number of steps: [`Times`].
pub const STEP: &str = "step";

/// Milliseconds of each step.
#[derive(Debug, Serialize, Deserialize)]
pub struct Times {
    pub ms: Vec<f64>,
}

/// A worker's last words.
#[derive(Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Of the last step.
    pub loss: f64,
    /// The process's largest resident set, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}
