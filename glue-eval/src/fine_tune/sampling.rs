//! Which examples are seen, and in which order. Both are functions of the seed and the step alone.

use fusion_core::random::permutation;

/// Endless passes over the examples, each in its own order.
pub(crate) struct EpochOrder {
    examples: usize,
    seed: u64,
    epoch: u64,
    order: Vec<usize>,
}

impl EpochOrder {
    pub fn new(examples: usize, seed: u64) -> Self {
        EpochOrder { examples, seed, epoch: 0, order: pass(examples, seed, 0) }
    }

    /// The examples of a step, counted from 1. A batch that reaches the end of a pass continues with the next pass.
    pub fn batch(&mut self, step: u64, size: usize) -> Vec<usize> {
        let (examples, size) = (self.examples.max(1) as u64, size as u64);
        let first = step.saturating_sub(1).saturating_mul(size);
        let mut batch = Vec::new();
        for position in first..first.saturating_add(size) {
            let epoch = position / examples;
            if epoch != self.epoch {
                self.epoch = epoch;
                self.order = pass(self.examples, self.seed, epoch);
            }
            batch.extend(usize::try_from(position % examples).ok().and_then(|place| self.order.get(place)));
        }
        batch
    }
}

/// The order of one pass.
fn pass(examples: usize, seed: u64, epoch: u64) -> Vec<usize> {
    // An odd factor keeps the passes of different seeds apart; there are few seeds and few passes.
    permutation(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(epoch), examples)
}

/// At most `limit` of the items. The draw depends on no seed, so that runs with different seeds stay comparable.
pub(crate) fn subset<T>(items: &[T], limit: Option<usize>) -> Vec<&T> {
    match limit {
        Some(limit) if limit < items.len() => {
            let mut drawn = pass(items.len(), 0, u64::MAX); // a pass that no training reaches
            drawn.truncate(limit);
            drawn.into_iter().filter_map(|index| items.get(index)).collect()
        }
        _ => items.iter().collect(),
    }
}
