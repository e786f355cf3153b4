//! What fine-tuning on some or all tasks came to, as JSON and as text.

mod published;
mod summary;
mod table;

use serde::{Deserialize, Serialize};

use crate::answer::Scoring;
use crate::fine_tune::{AtStep, FineTuneSettings, TaskReport};
use crate::score::{Confusion, GlueScore};
use crate::task::{Answer, Task};

pub use published::{published_rows, read_rows};
pub use summary::Summary;
pub use table::{Cell, Row, ScoreTable, aligned, columns};

/// Fine-tuning with one seed on some or all tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// One report per task.
    pub tasks: Vec<TaskReport>,
}

/// Fine-tuning on some or all tasks from the same model, with one or several seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlueReport {
    /// How the model was fine-tuned.
    pub settings: FineTuneSettings,
    /// One report per seed.
    pub seeds: Vec<SeedReport>,
}

impl GlueReport {
    /// Every seed's scores at a step.
    pub fn scores(&self, at: AtStep) -> Vec<GlueScore> {
        let score =
            |seed: &SeedReport| GlueScore::new(seed.tasks.iter().map(|report| report.at(at).score.clone()));
        self.seeds.iter().map(score).collect()
    }

    /// The best and the last step as two rows. `label` says what was fine-tuned; it may be empty.
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

    /// The last step, if it is the same for all fine-tunings.
    fn last_step(&self) -> Option<u64> {
        let mut steps = self.seeds.iter().flat_map(|seed| &seed.tasks).map(|task| task.last.step);
        let first = steps.next()?;
        steps.all(|step| step == first).then_some(first)
    }

    /// Notes for a table: how answers were obtained if not in T5's way, how many seeds there are, which figures come from
    /// subsets of the official data, and how many rows were left out.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.settings.score == Scoring::Rank {
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

    /// What the table leaves out: confidence intervals, and which class was answered for which. Of the last step of the
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
            aligned(&lines)
        );
        for report in &seed.tasks {
            for confusion in &report.last.score.confusion {
                text += &format!("\n{}", confusion_text(report.task, confusion));
            }
        }
        text
    }
}

/// Aligned columns: a row for each right answer, a column for each given answer.
fn confusion_text(task: Task, confusion: &Confusion) -> String {
    let Answer::Class { words, .. } = &task.spec().answer else { return String::new() };
    let title = if confusion.set.is_empty() { task.to_string() } else { format!("{task} {}", confusion.set) };
    let mut lines = vec![vec![title]];
    lines[0].extend(words.iter().map(|word| format!("→ {word}")));
    lines[0].push("→ invalid".to_owned());
    for (word, counts) in words.iter().zip(&confusion.counts) {
        let counts = counts.iter().map(usize::to_string);
        lines.push(std::iter::once((*word).to_owned()).chain(counts).collect());
    }
    aligned(&lines)
}
