//! GLUE's metrics as T5's evaluation computes them (`t5.evaluation.metrics`, that is, scikit-learn and SciPy).
//!
//! Every function takes `(reference, prediction)` pairs and returns a fraction, not a percentage. Without any pair,
//! every metric is NaN.

use serde::{Deserialize, Serialize};

/// Stands for an output that is none of the task's label words.
pub const INVALID_CLASS: i32 = -1;
/// Stands for an output that is not a number.
pub const INVALID_SCORE: f64 = -1.0;

/// A metric of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassMetric {
    /// See [`accuracy`].
    Accuracy,
    /// See [`f1`].
    F1,
    /// See [`matthews`].
    Matthews,
}

/// A metric of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScoreMetric {
    /// See [`pearson`].
    Pearson,
    /// See [`spearman`].
    Spearman,
}

impl ClassMetric {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            ClassMetric::Accuracy => "accuracy",
            ClassMetric::F1 => "F1",
            ClassMetric::Matthews => "Matthews",
        }
    }

    /// The metric as a fraction.
    pub fn of(self, pairs: &[(i32, i32)]) -> f64 {
        match self {
            ClassMetric::Accuracy => accuracy(pairs),
            ClassMetric::F1 => f1(pairs),
            ClassMetric::Matthews => matthews(pairs),
        }
    }
}

impl ScoreMetric {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            ScoreMetric::Pearson => "Pearson",
            ScoreMetric::Spearman => "Spearman",
        }
    }

    /// The metric as a fraction.
    pub fn of(self, pairs: &[(f64, f64)]) -> f64 {
        match self {
            ScoreMetric::Pearson => pearson(pairs),
            ScoreMetric::Spearman => spearman(pairs),
        }
    }
}

/// The fraction of predictions that equal their reference.
pub fn accuracy(pairs: &[(i32, i32)]) -> f64 {
    let correct = pairs.iter().filter(|(reference, prediction)| reference == prediction).count();
    correct as f64 / pairs.len() as f64
}

/// F1 of class 1 against class 0. A prediction that is neither counts as the wrong one of the two
/// (`f1_score_with_invalid`). Without any positive reference or prediction, it is 0 (scikit-learn's `zero_division`).
pub fn f1(pairs: &[(i32, i32)]) -> f64 {
    if pairs.is_empty() {
        return f64::NAN;
    }
    let (mut hits, mut positives, mut predicted) = (0_u64, 0_u64, 0_u64);
    for &(reference, prediction) in pairs {
        let positive = reference == 1;
        let answered_positive = if matches!(prediction, 0 | 1) { prediction == 1 } else { !positive };
        hits += u64::from(positive && answered_positive);
        positives += u64::from(positive);
        predicted += u64::from(answered_positive);
    }
    if positives + predicted == 0 { 0.0 } else { 2.0 * hits as f64 / (positives + predicted) as f64 }
}

/// Matthews' correlation of any number of classes (Gorodkin's R_K); an invalid prediction is a class of its own.
/// 0 if all references or all predictions are of one class (scikit-learn).
pub fn matthews(pairs: &[(i32, i32)]) -> f64 {
    if pairs.is_empty() {
        return f64::NAN;
    }
    let mut classes: Vec<i32> =
        pairs.iter().flat_map(|&(reference, prediction)| [reference, prediction]).collect();
    classes.sort_unstable();
    classes.dedup();

    let total = pairs.len() as f64;
    let correct = pairs.iter().filter(|(reference, prediction)| reference == prediction).count() as f64;
    let (mut joint, mut references, mut predictions) = (0.0, 0.0, 0.0); // sums over the classes of products of counts
    for class in classes {
        let referenced = pairs.iter().filter(|pair| pair.0 == class).count() as f64;
        let predicted = pairs.iter().filter(|pair| pair.1 == class).count() as f64;
        joint += referenced * predicted;
        references += referenced * referenced;
        predictions += predicted * predicted;
    }
    let variances = (total * total - references) * (total * total - predictions);
    if variances == 0.0 { 0.0 } else { (correct * total - joint) / variances.sqrt() }
}

/// Pearson's correlation. NaN if one side is constant or there are fewer than two pairs (SciPy).
pub fn pearson(pairs: &[(f64, f64)]) -> f64 {
    let (Some(x), Some(y)) =
        (standardised(pairs.iter().map(|pair| pair.0)), standardised(pairs.iter().map(|pair| pair.1)))
    else {
        return f64::NAN;
    };
    x.iter().zip(&y).map(|(x, y)| x * y).sum::<f64>().clamp(-1.0, 1.0)
}

/// Spearman's correlation: Pearson's, of the ranks; ties share the average of their ranks. NaN where Pearson's is.
pub fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let references = average_ranks(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let predictions = average_ranks(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
    pearson(&references.into_iter().zip(predictions).collect::<Vec<_>>())
}

/// The values minus their mean, scaled to unit length; `None` if they are constant or not finite.
fn standardised(values: impl Iterator<Item = f64> + Clone) -> Option<Vec<f64>> {
    let count = values.clone().count();
    let first = values.clone().next()?;
    if values.clone().all(|value| value == first) {
        return None;
    }
    let mean = values.clone().sum::<f64>() / count as f64;
    let largest = values.clone().map(|value| (value - mean).abs()).fold(0.0, f64::max);
    // Dividing by the largest first keeps the squares of very large and very small numbers representable.
    let centred: Vec<f64> = values.map(|value| (value - mean) / largest).collect();
    let norm = centred.iter().map(|value| value * value).sum::<f64>().sqrt();
    norm.is_normal().then(|| centred.iter().map(|value| value / norm).collect())
}

fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for ties in order.chunk_by(|&a, &b| values[a] == values[b]) {
        // Ranks start + 1 ..= start + ties.len(), whose average is:
        let rank = start as f64 + (ties.len() + 1) as f64 / 2.0;
        ties.iter().for_each(|&index| ranks[index] = rank);
        start += ties.len();
    }
    ranks
}
