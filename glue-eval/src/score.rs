//! From a model's outputs to a task's score and to GLUE's average.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::files::Label;
use crate::metrics::{INVALID_CLASS, INVALID_SCORE};
use crate::prompt::{parse_class, parse_score, score_text};
use crate::task::{Answer, EvaluationSet, Task, metric_name};

/// What a model answered to one example.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    pub label: Label,
    pub output: String,
    /// False where generation was cut at the length limit, or gave tokens that `output` does not show, such as
    /// sentinels: the output is invalid whatever it reads.
    pub plain: bool,
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
}

/// One cell of a table of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricScore {
    pub name: String,
    /// In percent. `None` where the metric is undefined: the correlation with constant predictions.
    pub percent: Option<f64>,
}

impl TaskScore {
    /// Scores a model's predictions, one list per [evaluation set](crate::task::TaskSpec::evaluation_sets).
    pub fn new(task: Task, sets: &[Vec<Prediction>]) -> Self {
        let mut score = TaskScore { task, metrics: Vec::new(), examples: 0, invalid: 0 };
        for (set, predictions) in task.spec().evaluation_sets.iter().zip(sets) {
            score.examples += predictions.len();
            match &task.spec().answer {
                Answer::Class { words, metrics, .. } => {
                    let pairs: Vec<_> =
                        predictions.iter().map(|prediction| class_pair(words, prediction)).collect();
                    score.invalid += pairs.iter().filter(|pair| pair.1 == INVALID_CLASS).count();
                    metrics.iter().for_each(|metric| score.push(set, metric.name(), metric.of(&pairs)));
                }
                Answer::Score { metrics, .. } => {
                    let pairs: Vec<_> = predictions.iter().map(score_pair).collect();
                    score.invalid += pairs.iter().filter(|pair| pair.1 == INVALID_SCORE).count();
                    metrics.iter().for_each(|metric| score.push(set, metric.name(), metric.of(&pairs)));
                }
            }
        }
        score
    }

    fn push(&mut self, set: &EvaluationSet, metric: &str, fraction: f64) {
        let percent = Some(100.0 * fraction).filter(|percent| percent.is_finite());
        self.metrics.push(MetricScore { name: metric_name(set, metric), percent });
    }

    /// The mean of the task's metrics in percent. An undefined one counts as 0: constant predictions say nothing
    /// about the references.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.metrics.iter().map(|metric| metric.percent.unwrap_or(0.0)).sum();
        if self.metrics.is_empty() { 0.0 } else { sum / self.metrics.len() as f64 }
    }
}

/// Reference and prediction as class indices.
fn class_pair(words: &[&str], prediction: &Prediction) -> (i32, i32) {
    let reference = match prediction.label {
        Label::Class(class) => i32::try_from(class).unwrap_or(i32::MAX),
        Label::Score(_) => i32::MAX,
    };
    (reference, if prediction.plain { parse_class(words, &prediction.output) } else { INVALID_CLASS })
}

/// Reference and prediction as numbers; the reference is what the model was taught to say, the rounded score.
fn score_pair(prediction: &Prediction) -> (f64, f64) {
    let reference = match prediction.label {
        Label::Score(score) => parse_score(&score_text(score)),
        Label::Class(_) => f64::NAN,
    };
    (reference, if prediction.plain { parse_score(&prediction.output) } else { INVALID_SCORE })
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
