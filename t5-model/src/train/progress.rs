//! How far a pretraining is.

use fusion_core::lineage::{Lineage, Training};
use serde::{Deserialize, Serialize};

use super::evaluate::EvaluationPoint;
use super::identity::Identity;
use super::metrics::Window;
use crate::text::DataPosition;

/// Where a run stands after some update.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub step: u64,
    /// Of the next update's first example.
    pub position: DataPosition,
    /// Input and target tokens trained on.
    pub tokens: u64,
    pub flops: f64,
    pub evaluations: Vec<EvaluationPoint>,
    /// Updates since the last line of metrics.
    pub window: Window,
}

impl Progress {
    /// That of the model as it is now, of which it was when the run began.
    pub fn lineage(&self, beginning: &Lineage) -> Lineage {
        let Progress { step, tokens, flops, .. } = *self;
        let mut lineage = beginning.clone();
        if step > 0 {
            lineage.training.push(Training { steps: step, tokens, flops, ..Training::default() });
        }
        lineage
    }
}

/// What a run's checkpoint holds besides the model and the moments.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    #[serde(flatten)]
    pub progress: Progress,
    pub metrics_lines: u64,
    pub identity: Identity,
}
