//! How far a fine-tuning is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::{StepScore, best};
use crate::score::TaskScore;
use crate::task::Task;

/// Where a fine-tuning stands after some update.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub step: u64,
    /// Input and target tokens trained on.
    pub tokens: u64,
    pub flops: f64,
    evaluations: BTreeMap<Task, Vec<StepScore>>,
    /// Losses of the updates since then.
    pub since_evaluation: RunningMean,
    pub since_log: RunningMean,
}

impl State {
    pub fn evaluations(&self, task: Task) -> &[StepScore] {
        self.evaluations.get(&task).map_or(&[], Vec::as_slice)
    }

    pub fn add(&mut self, score: StepScore) {
        self.evaluations.entry(score.score.task).or_default().push(score);
    }

    /// Whether the model of this step has been evaluated.
    pub fn is_evaluated(&self) -> bool {
        let at = |scores: &Vec<StepScore>| scores.last().is_some_and(|score| score.step == self.step);
        !self.evaluations.is_empty() && self.evaluations.values().all(at)
    }

    pub fn would_be_best(&self, score: &TaskScore) -> bool {
        let evaluations = self.evaluations(score.task);
        best(evaluations).is_none_or(|best| score.mean() > evaluations[best].score.mean())
    }

    /// Whether so many evaluations have brought no task a better score.
    pub fn ends_early(&self, patience: Option<u64>) -> bool {
        let since_best =
            self.evaluations.values().filter_map(|scores| Some(scores.len() - 1 - best(scores)?));
        patience.is_some_and(|patience| since_best.min().is_some_and(|since| since as u64 >= patience))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunningMean {
    sum: f64,
    count: u64,
}

impl RunningMean {
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// The mean of what was added since the last call.
    pub fn take(&mut self) -> Option<f64> {
        let RunningMean { sum, count } = std::mem::take(self);
        (count > 0).then(|| sum / count as f64)
    }
}
