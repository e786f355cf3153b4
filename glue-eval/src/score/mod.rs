//! From a model's outputs to a task's score and to GLUE's average.

mod bootstrap;
pub(crate) mod confusion;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::Label;
use crate::metrics::{INVALID_CLASS, INVALID_SCORE};
use crate::prompt::{parse_class, parse_score, score_text};
use crate::score::confusion::Confusion;
use crate::task::{Answer, EvaluationSet, Task, metric_name};

/// What a model answered to one example.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Absent in the test sets.
    pub label: Option<Label>,
    pub output: String,
    /// False where generation was cut at the length limit, or gave tokens that `output` does not show, such as
    /// sentinels: the output is invalid whatever it reads.
    pub plain: bool,
}

impl Prediction {
    /// The class that was answered, or [`INVALID_CLASS`].
    pub fn class(&self, words: &[&str]) -> i32 {
        if self.plain { parse_class(words, &self.output) } else { INVALID_CLASS }
    }

    /// The number that was answered, or [`INVALID_SCORE`].
    pub fn score(&self) -> f64 {
        if self.plain { parse_score(&self.output) } else { INVALID_SCORE }
    }

    /// Whether it is an answer to the task at all.
    pub fn is_valid(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Class { words, .. } => self.class(words) != INVALID_CLASS,
            Answer::Score { .. } => self.score() != INVALID_SCORE,
        }
    }
}

/// A task's metrics on its development sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    pub task: Task,
    /// In the task's column order; MNLI has one per development set.
    pub metrics: Vec<MetricScore>,
    pub examples: usize,
    /// Outputs that were no label word or no number.
    pub invalid: usize,
    /// One per development set, of a task with classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Confusion>,
}

/// One cell of a table of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricScore {
    pub name: String,
    /// In percent. `None` where the metric is undefined: the correlation with constant predictions.
    pub percent: Option<f64>,
    /// Where the metric lies in 95 % of bootstrap resamples of the examples, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

/// References and predictions of one set, as the metrics take them.
pub(crate) enum Pairs {
    Classes(Vec<(i32, i32)>),
    Scores(Vec<(f64, f64)>),
}

impl Pairs {
    fn of(answer: &Answer, predictions: &[Prediction]) -> Self {
        match answer {
            Answer::Class { words, .. } => Pairs::Classes(
                predictions
                    .iter()
                    .map(|prediction| (reference_class(prediction), prediction.class(words)))
                    .collect(),
            ),
            Answer::Score { .. } => Pairs::Scores(
                predictions
                    .iter()
                    .map(|prediction| (reference_score(prediction), prediction.score()))
                    .collect(),
            ),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Pairs::Classes(pairs) => pairs.len(),
            Pairs::Scores(pairs) => pairs.len(),
        }
    }

    /// The pairs at these positions.
    pub fn at(&self, positions: &[usize]) -> Pairs {
        match self {
            Pairs::Classes(pairs) => Pairs::Classes(positions.iter().map(|&index| pairs[index]).collect()),
            Pairs::Scores(pairs) => Pairs::Scores(positions.iter().map(|&index| pairs[index]).collect()),
        }
    }

    /// The task's metrics by name, as fractions.
    pub fn metrics(&self, answer: &Answer) -> Vec<(&'static str, f64)> {
        match (self, answer) {
            (Pairs::Classes(pairs), Answer::Class { metrics, .. }) => {
                metrics.iter().map(|metric| (metric.name(), metric.of(pairs))).collect()
            }
            (Pairs::Scores(pairs), Answer::Score { metrics, .. }) => {
                metrics.iter().map(|metric| (metric.name(), metric.of(pairs))).collect()
            }
            _ => Vec::new(), // of another task
        }
    }

    fn invalid(&self) -> usize {
        match self {
            Pairs::Classes(pairs) => pairs.iter().filter(|pair| pair.1 == INVALID_CLASS).count(),
            Pairs::Scores(pairs) => pairs.iter().filter(|pair| pair.1 == INVALID_SCORE).count(),
        }
    }
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

    /// Adds confidence intervals from so many resamples of the predictions that the score was made of.
    pub fn add_intervals(&mut self, sets: &[Vec<Prediction>], resamples: usize) {
        let spec = self.task.spec();
        let intervals = spec.evaluation_sets.iter().zip(sets).flat_map(|(set, predictions)| {
            bootstrap::intervals(&spec.answer, &Pairs::of(&spec.answer, predictions), set.name, resamples)
        });
        for (metric, interval) in self.metrics.iter_mut().zip(intervals) {
            metric.interval = interval;
        }
    }

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

fn reference_class(prediction: &Prediction) -> i32 {
    match prediction.label {
        Some(Label::Class(class)) => i32::try_from(class).unwrap_or(i32::MAX),
        _ => i32::MAX,
    }
}

/// What the model was taught to say: the rounded score.
fn reference_score(prediction: &Prediction) -> f64 {
    match prediction.label {
        Some(Label::Score(score)) => parse_score(&score_text(score)),
        _ => f64::NAN,
    }
}

/// Scores of some or all tasks. In JSON it carries the average and the missing tasks; when read, only the tasks count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "GlueScoreRecord", from = "GlueScoreRecord")]
pub struct GlueScore {
    tasks: BTreeMap<Task, TaskScore>,
}

impl GlueScore {
    /// Of several scores of one task the last counts.
    pub fn new(scores: impl IntoIterator<Item = TaskScore>) -> Self {
        GlueScore { tasks: scores.into_iter().map(|score| (score.task, score)).collect() }
    }

    pub fn task(&self, task: Task) -> Option<&TaskScore> {
        self.tasks.get(&task)
    }

    /// In the paper's column order.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskScore> {
        self.tasks.values()
    }

    /// Tasks without a score: where there are any, the average is not GLUE's.
    pub fn missing(&self) -> Vec<Task> {
        Task::ALL.into_iter().filter(|task| !self.tasks.contains_key(task)).collect()
    }

    /// The mean over the scored tasks of the mean of each task's metrics, in percent, as the paper's Table 5 takes
    /// it. `None` without any task.
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
