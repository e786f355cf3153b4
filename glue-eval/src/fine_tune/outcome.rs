//! What a fine-tuning on a task came to.

use serde::{Deserialize, Serialize};

use super::settings::AtStep;
use crate::data::{Example, Split};
use crate::score::TaskScore;
use crate::task::Task;

/// A task's score after some steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepScore {
    /// Updates so far.
    pub step: u64,
    /// Mean cross-entropy per token over the updates since the previous evaluation, in nats; absent at step 0.
    pub train_loss: Option<f64>,
    /// On the development sets.
    pub score: TaskScore,
}

/// The position of the evaluation with the highest mean of metrics, the first of several.
pub(crate) fn best(evaluations: &[StepScore]) -> Option<usize> {
    let better = |best: usize, other: usize| {
        if evaluations[other].score.mean() > evaluations[best].score.mean() { other } else { best }
    };
    (0..evaluations.len()).reduce(better)
}

/// How many examples of a split were used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExampleCount {
    /// The hub's name: `train`, `validation`, `validation_matched`.
    pub split: String,
    /// Examples used.
    pub used: usize,
    /// Rows of the official file.
    pub official: usize,
}

impl ExampleCount {
    /// Counts for a task's training set and its development sets.
    pub(crate) fn of(task: Task, train: usize, dev: &[Vec<&Example>]) -> Vec<Self> {
        let sets = task.spec().evaluation_sets.iter().map(Split::Dev);
        let used = std::iter::once(train).chain(dev.iter().map(Vec::len));
        let count = |(split, used): (Split, usize)| ExampleCount {
            split: split.to_string(),
            used,
            official: split.official_rows(task),
        };
        std::iter::once(Split::Train).chain(sets).zip(used).map(count).collect()
    }
}

/// One task's fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task.
    pub task: Task,
    /// See [`AtStep::Best`].
    pub best: StepScore,
    /// See [`AtStep::Last`].
    pub last: StepScore,
    /// All evaluations, in the order of their steps.
    pub evaluations: Vec<StepScore>,
    /// For the training set, then for each development set.
    pub examples: Vec<ExampleCount>,
    /// Rows of the files that were left out because they are no examples.
    pub skipped_rows: usize,
}

impl TaskReport {
    /// `None` without any evaluation.
    pub(crate) fn new(
        task: Task,
        evaluations: Vec<StepScore>,
        examples: Vec<ExampleCount>,
        skipped_rows: usize,
    ) -> Option<Self> {
        let best = evaluations[best(&evaluations)?].clone();
        let last = evaluations.last()?.clone();
        Some(TaskReport { task, best, last, evaluations, examples, skipped_rows })
    }

    /// The evaluation at this step.
    pub fn at(&self, step: AtStep) -> &StepScore {
        match step {
            AtStep::Best => &self.best,
            AtStep::Last => &self.last,
        }
    }

    /// Whether any split was used only in part, compared with the official files.
    pub fn is_subset(&self) -> bool {
        self.examples.iter().any(|count| count.used < count.official)
    }
}
