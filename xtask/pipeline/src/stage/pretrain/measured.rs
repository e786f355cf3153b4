//! What a training has measured on the way.

use std::path::Path;

use anyhow::Result;
use t5_model::train::{EvaluationPoint, Metrics, read_metrics};

/// The lines of a training's `metrics.jsonl`, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// On held-out text.
    pub evaluations: Vec<EvaluationPoint>,
    /// On the text that it is trained on.
    pub logged: Vec<Logged>,
}

/// Means over the updates since the line before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logged {
    /// The last of these updates.
    pub step: u64,
    /// Input and target tokens trained on so far.
    pub tokens: u64,
    /// Mean cross-entropy of the target tokens, in nats.
    pub loss: f64,
    /// Before clipping.
    pub gradient_norm: f64,
    /// The last update's.
    pub learning_rate: f64,
    /// Input and target tokens per second.
    pub tokens_per_second: f64,
}

impl Measured {
    /// Reads a training's directory.
    ///
    /// # Errors
    /// If its metrics are missing or cannot be read.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut measured = Measured::default();
        for metrics in read_metrics(directory)? {
            match metrics {
                Metrics::Evaluation(point) => measured.evaluations.push(point),
                Metrics::Train {
                    step,
                    tokens,
                    loss,
                    gradient_norm,
                    learning_rate,
                    tokens_per_second,
                    ..
                } => {
                    let line = Logged { step, tokens, loss, gradient_norm, learning_rate, tokens_per_second };
                    measured.logged.push(line);
                }
            }
        }
        Ok(measured)
    }
}
