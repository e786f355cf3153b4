//! Drawing tokens.

use std::cmp::Ordering;

use fusion_core::random::Philox;

use super::decoding::Answer;

/// Which tokens may be drawn, and how likely each is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by.
    pub temperature: f64,
    /// How many of the most likely tokens are left; more if several are equally likely.
    pub top_k: usize,
    /// The fewest tokens that are together at least this likely are left.
    pub top_p: f64,
    /// Tokens at least this likely, relative to the most likely, are left.
    pub min_p: f64,
}

impl Sampling {
    /// The tokens that may be drawn, with their probabilities. As in transformers, the temperature applies
    /// first, and each filter applies to what the one before it left.
    pub fn distribution(&self, logits: &[f32]) -> Vec<(i32, f64)> {
        let logit = |(token, logit): (i32, &f32)| (token, f64::from(*logit) / self.temperature);
        let mut left: Vec<(i32, f64)> = (0..).zip(logits).map(logit).collect();
        if self.top_k < left.len() {
            let (_, (_, least), _) = left.select_nth_unstable_by(self.top_k.saturating_sub(1), descending);
            let least = *least;
            left.retain(|(_, logit)| *logit >= least);
        }
        let largest = left.iter().map(|(_, logit)| *logit).fold(f64::NEG_INFINITY, f64::max);
        left.iter_mut().for_each(|(_, logit)| *logit = (*logit - largest).exp());
        normalize(&mut left);
        if self.top_p < 1.0 {
            left.sort_unstable_by(descending);
            let mut before = 0.0;
            let enough = left.iter().position(|(_, probability)| {
                let enough = before >= self.top_p;
                before += probability;
                enough
            });
            left.truncate(enough.unwrap_or(left.len()).max(1));
            normalize(&mut left);
        }
        if self.min_p > 0.0 {
            let most = left.iter().map(|(_, probability)| *probability).fold(0.0, f64::max);
            left.retain(|(_, probability)| *probability >= self.min_p * most);
            normalize(&mut left);
        }
        left
    }

    /// The token at a fraction of the distribution.
    pub(super) fn draw(&self, logits: &[f32], fraction: f64) -> i32 {
        let mut distribution = self.distribution(logits);
        // The order in which they were left depends on the selection.
        distribution.sort_unstable_by_key(|(token, _)| *token);
        let mut below = 0.0;
        let drawn = distribution.iter().find(|(_, probability)| {
            below += probability;
            fraction < below
        });
        drawn.or(distribution.last()).map_or(0, |(token, _)| *token)
    }
}

/// Draws for the answers to an input.
pub(super) struct Draws(Philox);

impl Draws {
    /// Those of an answer; inputs are numbered across batches.
    pub fn new(seed: u64, input: u64, answer: usize) -> Self {
        Draws(Philox::new(seed, &format!("answer {input}.{answer}")))
    }

    /// In `[0, 1)`, for the token at a position.
    pub fn fraction(&self, position: usize) -> f64 {
        let [high, low, ..] = self.0.block(position as u64);
        let bits = u64::from(high) << 32 | u64::from(low);
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The largest first; equal ones in order.
fn descending(a: &(i32, f64), b: &(i32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn normalize(distribution: &mut [(i32, f64)]) {
    let sum: f64 = distribution.iter().map(|(_, probability)| probability).sum();
    distribution.iter_mut().for_each(|(_, probability)| *probability /= sum);
}

impl Answer {
    /// Adds a token, or the end, with its log probability.
    pub(super) fn say(&mut self, token: Option<i32>, log_probability: f64) {
        self.tokens.extend(token);
        self.log_probability += log_probability;
        self.score = self.log_probability;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Sampling = Sampling { temperature: 1.0, top_k: usize::MAX, top_p: 1.0, min_p: 0.0 };

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.0, 2.0, -1.0, 1.0, f32::NEG_INFINITY];
        let sampling = Sampling { temperature: 0.7, ..ALL };
        let mut counts = [0u32; 5];
        let draws = 40_000;
        for input in 0..draws {
            let fraction = Draws::new(3, input, 0).fraction(5);
            counts[sampling.draw(&logits, fraction) as usize] += 1;
        }
        for (token, probability) in sampling.distribution(&logits) {
            let (expected, n) = (probability * draws as f64, draws as f64);
            let deviation = (n * probability * (1.0 - probability)).sqrt();
            let found = f64::from(counts[token as usize]);
            assert!((found - expected).abs() <= 5.0 * deviation, "{token}: {found}, expected {expected}");
        }
    }

    #[test]
    fn every_fraction_gives_a_token_that_is_left() {
        let logits = [0.0, 2.0, -1.0, 1.0];
        let sampling = Sampling { top_k: 2, ..ALL };
        let drawn = [0.0, 0.5, 0.999_999, 1.0].map(|fraction| sampling.draw(&logits, fraction));
        assert_eq!(drawn, [1, 1, 3, 3]);
        let only = Sampling { top_p: 1e-9, ..ALL };
        assert_eq!(only.distribution(&logits), [(1, 1.0)]);
    }
}
