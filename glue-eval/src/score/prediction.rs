//! A model's answers, and the pairs of references and predictions that the metrics compare.

use crate::data::Label;
use crate::metrics::{INVALID_CLASS, INVALID_SCORE};
use crate::prompt::{parse_class, parse_score, score_text};
use crate::task::Answer;

/// What a model answered to one example.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The right answer; absent in test sets.
    pub label: Option<Label>,
    /// The answer, decoded.
    pub output: String,
    /// False if generation was cut off at the length limit, or gave tokens that `output` does not show, such as
    /// sentinels: then the output is invalid whatever it says.
    pub plain: bool,
}

impl Prediction {
    /// The class of the answer, or [`INVALID_CLASS`].
    pub fn class(&self, words: &[&str]) -> i32 {
        if self.plain { parse_class(words, &self.output) } else { INVALID_CLASS }
    }

    /// The number in the answer, or [`INVALID_SCORE`].
    pub fn score(&self) -> f64 {
        if self.plain { parse_score(&self.output) } else { INVALID_SCORE }
    }

    /// Whether it answers the task at all.
    pub fn is_valid(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Class { words, .. } => self.class(words) != INVALID_CLASS,
            Answer::Score { .. } => self.score() != INVALID_SCORE,
        }
    }
}

/// The references and predictions of a set, as the metrics take them.
pub(crate) enum Pairs {
    Classes(Vec<(i32, i32)>),
    Scores(Vec<(f64, f64)>),
}

impl Pairs {
    pub fn of(answer: &Answer, predictions: &[Prediction]) -> Self {
        match answer {
            Answer::Class { words, .. } => {
                let pair = |prediction: &Prediction| (reference_class(prediction), prediction.class(words));
                Pairs::Classes(predictions.iter().map(pair).collect())
            }
            Answer::Score { .. } => {
                let pair = |prediction: &Prediction| (reference_score(prediction), prediction.score());
                Pairs::Scores(predictions.iter().map(pair).collect())
            }
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
            _ => Vec::new(), // pairs of another task
        }
    }

    /// How many predictions are no answer.
    pub fn invalid(&self) -> usize {
        match self {
            Pairs::Classes(pairs) => pairs.iter().filter(|pair| pair.1 == INVALID_CLASS).count(),
            Pairs::Scores(pairs) => pairs.iter().filter(|pair| pair.1 == INVALID_SCORE).count(),
        }
    }
}

fn reference_class(prediction: &Prediction) -> i32 {
    match prediction.label {
        Some(Label::Class(class)) => i32::try_from(class).unwrap_or(i32::MAX),
        _ => i32::MAX,
    }
}

/// What the model learned to say: the rounded score.
fn reference_score(prediction: &Prediction) -> f64 {
    match prediction.label {
        Some(Label::Score(score)) => parse_score(&score_text(score)),
        _ => f64::NAN,
    }
}
