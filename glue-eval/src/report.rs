//! What fine-tuning on some or all tasks came to.

use serde::{Deserialize, Serialize};

use crate::score::{GlueScore, TaskScore};
use crate::settings::FineTuneSettings;
use crate::table::ScoreTable;
use crate::task::Task;

/// A task's score after some steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepScore {
    pub step: u64,
    /// Mean token cross-entropy over the steps since the evaluation before, in nats; absent at step 0.
    pub train_loss: Option<f64>,
    pub score: TaskScore,
}

/// Examples used, beside those of the official file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExampleCount {
    pub file: String,
    pub used: usize,
    pub official: usize,
}

/// One task's fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    pub task: Task,
    /// The evaluation with the highest mean of metrics, the earliest of several. T5 reports this one; having been
    /// chosen on the development set itself, it is optimistic.
    pub best: StepScore,
    /// The evaluation after the last step, which nothing was chosen by.
    pub last: StepScore,
    /// All of them, in order of steps.
    pub evaluations: Vec<StepScore>,
    pub examples: Vec<ExampleCount>,
    /// Rows of the files that were no examples and left out.
    pub skipped_rows: usize,
}

impl TaskReport {
    pub(crate) fn new(
        task: Task,
        mut evaluations: Vec<StepScore>,
        last: StepScore,
        examples: Vec<ExampleCount>,
        skipped_rows: usize,
    ) -> Self {
        let better = |best: &StepScore, other: &StepScore| other.score.mean() > best.score.mean();
        evaluations.push(last.clone());
        let first = evaluations.first().unwrap_or(&last);
        let best = evaluations
            .iter()
            .fold(first, |best, other| if better(best, other) { other } else { best })
            .clone();
        TaskReport { task, best, last, evaluations, examples, skipped_rows }
    }

    /// Whether fewer examples than the official files have were used anywhere.
    pub fn is_subset(&self) -> bool {
        self.examples.iter().any(|count| count.used < count.official)
    }
}

/// Fine-tuning on some or all tasks, each from the same model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlueReport {
    pub settings: FineTuneSettings,
    pub tasks: Vec<TaskReport>,
}

impl GlueReport {
    /// Every task at its own best step, as T5 reports.
    pub fn best(&self) -> GlueScore {
        GlueScore::new(self.tasks.iter().map(|report| report.best.score.clone()))
    }

    /// Every task at the last step.
    pub fn last(&self) -> GlueScore {
        GlueScore::new(self.tasks.iter().map(|report| report.last.score.clone()))
    }

    /// Best and last step as two rows. `label` says what was fine-tuned; it may be empty.
    pub fn table(&self, label: &str) -> ScoreTable {
        let row = |step: &str| {
            [label, step].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
        };
        let rows = vec![
            (row("best step of each task"), self.best()),
            (row(&format!("last step ({})", self.settings.steps)), self.last()),
        ];
        ScoreTable { rows, notes: self.notes() }
    }

    /// Which figures come from subsets of the official data, and which rows were left out.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for report in &self.tasks {
            if report.is_subset() {
                let subsets = report.examples.iter().filter(|count| count.used < count.official);
                let subsets =
                    subsets.map(|count| format!("{} of {} in {}", count.used, count.official, count.file));
                notes.push(format!("{}: subset, {}.", report.task, subsets.collect::<Vec<_>>().join(", ")));
            }
            if report.skipped_rows > 0 {
                notes.push(format!("{}: bad rows left out: {}.", report.task, report.skipped_rows));
            }
        }
        notes
    }
}
