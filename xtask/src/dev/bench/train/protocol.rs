//! The additional messages between `bench train` and its workers.
//!
//! Also spoken by `xtask/src/dev/bench/scripts/bench_transformers.py`.

use serde::{Deserialize, Serialize};

/// Untimed steps that a worker takes before it is ready.
pub const WARM_UP: u32 = 3;

/// The request for a number of steps: [`Times`].
pub const STEP: &str = "step";

/// Milliseconds of each step.
#[derive(Debug, Serialize, Deserialize)]
pub struct Times {
    pub ms: Vec<f64>,
}

/// A worker's last message.
#[derive(Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The last step's loss.
    pub loss: f64,
    /// The process's peak resident set, where the system reports it.
    pub peak_rss_bytes: Option<u64>,
}
