//! How far a model's predictions are from others, such as those of the ensemble it was fused from.

use fusion_core::HostTensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::IGNORED_LABEL;

/// A comparison of a model's predictions of target tokens with the expected ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// Root mean square of the logits' differences, over tokens and vocabulary, relative to that of the
    /// expected logits.
    pub logits: f64,
    /// The largest difference, relative to the largest expected logit.
    pub largest: f64,
    /// Mean Kullback-Leibler divergence of the model's distribution from the expected one, in nats.
    pub divergence: f64,
    /// Share of the tokens whose most likely prediction is the expected one.
    pub agreement: f64,
    /// Mean cross-entropy of a target token in nats.
    pub loss: f64,
    /// Mean cross-entropy of the expected predictions in nats.
    pub expected_loss: f64,
    /// Target tokens.
    pub tokens: u64,
}

/// Sums over tokens, from which [`Comparison::deviation`] makes a [`Deviation`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Comparison {
    squared_difference: f64,
    squared_logit: f64,
    largest_difference: f64,
    largest_logit: f64,
    divergence: f64,
    agreeing: u64,
    loss: f64,
    expected_loss: f64,
    tokens: u64,
}

impl Comparison {
    /// Adds the tokens of a batch whose labels count. `expected` and `found` are logits,
    /// `[batch, target, vocabulary]`. The sums do not depend on the number of threads.
    pub fn add(&mut self, expected: &HostTensor, found: &HostTensor, labels: &[i32]) {
        let vocabulary = expected.shape.last().copied().unwrap_or(1).max(1);
        let rows = expected.data.par_chunks(vocabulary).zip(found.data.par_chunks(vocabulary)).zip(labels);
        let counted = rows.filter(|(_, label)| **label != IGNORED_LABEL);
        let each: Vec<Comparison> =
            counted.map(|((expected, found), label)| Comparison::of(expected, found, *label)).collect();
        *self = each.into_iter().fold(*self, Comparison::plus);
    }

    /// The deviation over all tokens so far. Not finite if the logits are not, or if there are no tokens.
    pub fn deviation(&self) -> Deviation {
        let mean = |sum: f64| sum / self.tokens as f64;
        Deviation {
            logits: (self.squared_difference / self.squared_logit.max(f64::MIN_POSITIVE)).sqrt(),
            largest: self.largest_difference / larger(self.largest_logit, f64::MIN_POSITIVE),
            divergence: mean(self.divergence),
            agreement: mean(self.agreeing as f64),
            loss: mean(self.loss),
            expected_loss: mean(self.expected_loss),
            tokens: self.tokens,
        }
    }

    fn plus(self, other: Comparison) -> Comparison {
        Comparison {
            squared_difference: self.squared_difference + other.squared_difference,
            squared_logit: self.squared_logit + other.squared_logit,
            largest_difference: larger(self.largest_difference, other.largest_difference),
            largest_logit: larger(self.largest_logit, other.largest_logit),
            divergence: self.divergence + other.divergence,
            agreeing: self.agreeing + other.agreeing,
            loss: self.loss + other.loss,
            expected_loss: self.expected_loss + other.expected_loss,
            tokens: self.tokens + other.tokens,
        }
    }

    /// One token.
    fn of(expected: &[f32], found: &[f32], label: i32) -> Comparison {
        let (expected_log_z, found_log_z) = (log_sum_exp(expected), log_sum_exp(found));
        let at = |logits: &[f32]| {
            let logit = usize::try_from(label).ok().and_then(|label| logits.get(label));
            logit.copied().map_or(f64::NAN, f64::from)
        };
        let mut sums = Comparison {
            loss: found_log_z - at(found),
            expected_loss: expected_log_z - at(expected),
            agreeing: (largest(expected) == largest(found)).into(),
            tokens: 1,
            ..Comparison::default()
        };
        for (expected, found) in expected.iter().zip(found) {
            let (expected, found) = (f64::from(*expected), f64::from(*found));
            sums.squared_difference += (found - expected).powi(2);
            sums.squared_logit += expected.powi(2);
            sums.largest_difference = larger(sums.largest_difference, (found - expected).abs());
            sums.largest_logit = larger(sums.largest_logit, expected.abs());
            let log_probability = expected - expected_log_z;
            sums.divergence += log_probability.exp() * (log_probability - (found - found_log_z));
        }
        sums
    }
}

/// The larger number. NaN wins, so that it is not lost.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The index of the first largest value.
fn largest(logits: &[f32]) -> usize {
    let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).reduce(better).unwrap_or(0)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest + logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: probabilities 1/4 and 3/4 against 1/2 each, and a row that does not count.
    #[test]
    fn a_token() {
        let tensor = |data: &[f32]| HostTensor { shape: vec![1, 2, 2], data: data.to_vec() };
        let expected = tensor(&[0.0, 3f32.ln(), 5.0, 5.0]);
        let found = tensor(&[1.0, 1.0, 0.0, 9.0]);
        let mut comparison = Comparison::default();
        comparison.add(&expected, &found, &[1, IGNORED_LABEL]);
        let deviation = comparison.deviation();
        let close =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        close(deviation.loss, 2f64.ln());
        close(deviation.expected_loss, (4f64 / 3.0).ln());
        close(deviation.divergence, 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln());
        close(deviation.logits, ((1.0 + (1.0 - 3f64.ln()).powi(2)) / 3f64.ln().powi(2)).sqrt());
        close(deviation.largest, 1.0 / 3f64.ln());
        close(deviation.agreement, 0.0);
        assert_eq!(deviation.tokens, 1);
    }

    #[test]
    fn nothing_to_compare_and_what_is_not_finite() {
        assert!(!Comparison::default().deviation().loss.is_finite());
        let mut comparison = Comparison::default();
        let tensor = |data: &[f32]| HostTensor { shape: vec![1, 1, 2], data: data.to_vec() };
        comparison.add(&tensor(&[0.0, 1.0]), &tensor(&[f32::NAN, 1.0]), &[1]);
        comparison.add(&tensor(&[0.0, 1.0]), &tensor(&[0.0, 1.0]), &[1]);
        assert!(!comparison.deviation().logits.is_finite());
        assert!(!comparison.deviation().largest.is_finite());
    }
}
