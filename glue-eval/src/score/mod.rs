//! From a model's outputs to a task's score, and to GLUE's average.

mod bootstrap;
mod confusion;
mod prediction;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::prediction::Pairs;
use crate::task::{Answer, EvaluationSet, Task, metric_name};

pub use confusion::Confusion;
pub use prediction::Prediction;

/// A task's metrics on its development sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    /// The task.
    pub task: Task,
    /// In the order of the task's columns; MNLI has one per development set.
    pub metrics: Vec<MetricScore>,
    /// Examples that were answered.
    pub examples: usize,
    /// Outputs that were not a label word, or not a number.
    pub invalid: usize,
    /// One per development set, if the task has classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Confusion>,
}

/// One cell of a table of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricScore {
    /// The column: the metric, preceded by the evaluation set's name if there are several.
    pub name: String,
    /// In percent. `None` if the metric is undefined, as the correlation with constant predictions is.
    pub percent: Option<f64>,
    /// The range that holds the metric in 95 % of bootstrap resamples of the examples, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

impl TaskScore {
    /// Scores a model's predictions, one list per [evaluation set](crate::task::TaskSpec::evaluation_sets).
    pub fn new(task: Task, sets: &[Vec<Prediction>]) -> Self {
        let mut score =
            TaskScore { task, metrics: Vec::new(), examples: 0, invalid: 0, confusion: Vec::new() };
        let spec = task.spec();
        for (set, predictions) in spec.evaluation_sets.iter().zip(sets) {
            let pairs = Pairs::of(&spec.answer, predictions);
            score.examples += pairs.len();
            score.invalid += pairs.invalid();
            let metrics = pairs.metrics(&spec.answer).into_iter();
            score.metrics.extend(metrics.map(|(metric, fraction)| MetricScore::of(set, metric, fraction)));
            if let (Answer::Class { words, .. }, Pairs::Classes(pairs)) = (&spec.answer, &pairs) {
                score.confusion.push(Confusion::new(set.name, words.len(), pairs));
            }
        }
        score
    }

    /// Adds confidence intervals from so many resamples of the predictions behind the score.
    pub fn add_intervals(&mut self, sets: &[Vec<Prediction>], resamples: usize) {
        let spec = self.task.spec();
        let intervals = spec.evaluation_sets.iter().zip(sets).flat_map(|(set, predictions)| {
            bootstrap::intervals(&spec.answer, &Pairs::of(&spec.answer, predictions), set.name, resamples)
        });
        for (metric, interval) in self.metrics.iter_mut().zip(intervals) {
            metric.interval = interval;
        }
    }

    /// The metric of this name.
    pub fn metric(&self, name: &str) -> Option<&MetricScore> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// The mean of the task's metrics in percent. An undefined one counts as 0: constant predictions say nothing
    /// about the references.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.metrics.iter().map(|metric| metric.percent.unwrap_or(0.0)).sum();
        if self.metrics.is_empty() { 0.0 } else { sum / self.metrics.len() as f64 }
    }
}

impl MetricScore {
    fn of(set: &EvaluationSet, metric: &str, fraction: f64) -> Self {
        let percent = Some(100.0 * fraction).filter(|percent| percent.is_finite());
        MetricScore { name: metric_name(set, metric), percent, interval: None }
    }
}

/// Scores of some or all tasks. Its JSON includes the average and the missing tasks, which are ignored when it is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "GlueScoreRecord", from = "GlueScoreRecord")]
pub struct GlueScore {
    tasks: BTreeMap<Task, TaskScore>,
}

impl GlueScore {
    /// Of several scores of a task, the last counts.
    pub fn new(scores: impl IntoIterator<Item = TaskScore>) -> Self {
        GlueScore { tasks: scores.into_iter().map(|score| (score.task, score)).collect() }
    }

    /// The score of a task.
    pub fn task(&self, task: Task) -> Option<&TaskScore> {
        self.tasks.get(&task)
    }

    /// All scores, in the order of the paper's columns.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskScore> {
        self.tasks.values()
    }

    /// Tasks without a score. If there are any, the average is not GLUE's.
    pub fn missing(&self) -> Vec<Task> {
        Task::ALL.into_iter().filter(|task| !self.tasks.contains_key(task)).collect()
    }

    /// The mean over the scored tasks of the mean of each task's metrics, in percent, as in the paper's Table 5. `None`
    /// without any task.
    pub fn average(&self) -> Option<f64> {
        let sum: f64 = self.tasks.values().map(TaskScore::mean).sum();
        (!self.tasks.is_empty()).then(|| sum / self.tasks.len() as f64)
    }
}

#[derive(Serialize, Deserialize)]
struct GlueScoreRecord {
    #[serde(default)]
    average: Option<f64>,
    #[serde(default)]
    missing: Vec<Task>,
    tasks: Vec<TaskScore>,
}

impl From<GlueScore> for GlueScoreRecord {
    fn from(score: GlueScore) -> Self {
        let (average, missing) = (score.average(), score.missing());
        GlueScoreRecord { average, missing, tasks: score.tasks.into_values().collect() }
    }
}

impl From<GlueScoreRecord> for GlueScore {
    fn from(record: GlueScoreRecord) -> Self {
        GlueScore::new(record.tasks)
    }
}
