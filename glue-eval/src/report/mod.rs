//! What fine-tuning on some or all tasks came to.

pub(crate) mod published;
pub(crate) mod summary;
pub mod table;

use serde::{Deserialize, Serialize};

use crate::data::{Example, Split};
use crate::fine_tune::settings::{AtStep, FineTuneSettings};
use crate::report::table::{Row, ScoreTable};
use crate::score::{GlueScore, TaskScore};
use crate::task::Task;

/// A task's score after some steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepScore {
    pub step: u64,
    /// Mean token cross-entropy over the steps since the evaluation before, in nats; absent at step 0.
    pub train_loss: Option<f64>,
    pub score: TaskScore,
}

/// The position of the highest mean of metrics, the first of several.
pub(crate) fn best(evaluations: &[StepScore]) -> Option<usize> {
    let better = |best: usize, other: usize| {
        if evaluations[other].score.mean() > evaluations[best].score.mean() { other } else { best }
    };
    (0..evaluations.len()).reduce(better)
}

/// Examples used of a split, beside those of the official one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExampleCount {
    /// The hub's name: `train`, `validation`, `validation_matched`.
    pub split: String,
    pub used: usize,
    pub official: usize,
}

impl ExampleCount {
    /// Of a task's training set and its development sets.
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
    pub task: Task,
    /// See [`AtStep::Best`].
    pub best: StepScore,
    /// See [`AtStep::Last`].
    pub last: StepScore,
    /// All of them, in order of steps.
    pub evaluations: Vec<StepScore>,
    pub examples: Vec<ExampleCount>,
    /// Rows of the files that were no examples and left out.
    pub skipped_rows: usize,
}

impl TaskReport {
    /// `None` without an evaluation.
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

    pub fn at(&self, step: AtStep) -> &StepScore {
        match step {
            AtStep::Best => &self.best,
            AtStep::Last => &self.last,
        }
    }

    /// Whether fewer examples than the official files have were used anywhere.
    pub fn is_subset(&self) -> bool {
        self.examples.iter().any(|count| count.used < count.official)
    }
}

/// Fine-tuning with one seed on some or all tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedReport {
    pub seed: u64,
    pub tasks: Vec<TaskReport>,
}

/// Fine-tuning on some or all tasks from the same model, with one or several seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlueReport {
    pub settings: FineTuneSettings,
    pub seeds: Vec<SeedReport>,
}

impl GlueReport {
    /// Every seed's scores at a step.
    pub fn scores(&self, at: AtStep) -> Vec<GlueScore> {
        let score =
            |seed: &SeedReport| GlueScore::new(seed.tasks.iter().map(|report| report.at(at).score.clone()));
        self.seeds.iter().map(score).collect()
    }

    /// Best and last step as two rows. `label` says what was fine-tuned; it may be empty.
    pub fn table(&self, label: &str) -> ScoreTable {
        let row = |step: &str, at| {
            let label: Vec<&str> = [label, step].into_iter().filter(|part| !part.is_empty()).collect();
            Row::measured(label.join(", "), &self.scores(at))
        };
        let last =
            format!("last step{}", self.last_step().map_or(String::new(), |step| format!(" ({step})")));
        let rows = vec![row("best step of each task", AtStep::Best), row(&last, AtStep::Last)];
        ScoreTable { rows, notes: self.notes() }
    }

    /// Where it is the same for all.
    fn last_step(&self) -> Option<u64> {
        let mut steps = self.seeds.iter().flat_map(|seed| &seed.tasks).map(|task| task.last.step);
        let first = steps.next()?;
        steps.all(|step| step == first).then_some(first)
    }

    /// How answers were taken where that is not T5's way, how many seeds there are, which figures come from subsets of
    /// the official data, and which rows were left out.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.settings.score == crate::Scoring::Rank {
            notes.push("Answers are the most likely of the possible ones, not generated.".to_owned());
        }
        if self.settings.mixture {
            notes.push("One model for all tasks, trained on their mixture.".to_owned());
        }
        if let count @ 2.. = self.seeds.len() {
            notes.push(format!("Mean ± standard deviation over {count} seeds."));
        }
        for report in self.seeds.first().iter().flat_map(|seed| &seed.tasks) {
            if report.is_subset() {
                let subsets = report.examples.iter().filter(|count| count.used < count.official);
                let subsets =
                    subsets.map(|count| format!("{} of {} in {}", count.used, count.official, count.split));
                notes.push(format!("{}: subset, {}.", report.task, subsets.collect::<Vec<_>>().join(", ")));
            }
            if report.skipped_rows > 0 {
                notes.push(format!("{}: bad rows left out: {}.", report.task, report.skipped_rows));
            }
        }
        notes
    }

    /// What the table leaves out, of the last step: confidence intervals, and which class was answered for which; of the
    /// first seed.
    pub fn details(&self) -> String {
        let Some(seed) = self.seeds.first() else { return String::new() };
        let mut lines = Vec::new();
        for report in &seed.tasks {
            for metric in &report.last.score.metrics {
                let percent = metric.percent.map_or("nan".to_owned(), |percent| format!("{percent:.2}"));
                let interval =
                    metric.interval.map_or(String::new(), |[low, high]| format!("{low:.2} to {high:.2}"));
                lines.push(vec![format!("{} {}", report.task, metric.name), percent, interval]);
            }
        }
        let mut text = format!(
            "Last step, seed {}, with 95 % confidence intervals from {} bootstrap resamples:\n{}",
            seed.seed,
            self.settings.bootstrap,
            crate::report::table::aligned(&lines)
        );
        for report in &seed.tasks {
            for confusion in &report.last.score.confusion {
                text += &format!("\n{}", confusion.text(report.task));
            }
        }
        text
    }
}
