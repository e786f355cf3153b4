//! Random permutations determined by a seed and a purpose.

use fusion_core::random::philox4x32;

/// A permutation's purpose. Different uses of a seed are independent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Draw {
    NoiseSpans = 0,
    KeptSpans = 1,
    Files = 2,
    Chunks = 3,
}

/// A random permutation of `0..n`. `number` counts chunks or blocks within the epoch.
pub(super) fn permutation(n: usize, draw: Draw, seed: u64, epoch: u64, number: u64) -> Vec<usize> {
    let counter = [number as u32, (number >> 32) as u32, epoch as u32, draw as u32];
    let [low, high, ..] = philox4x32(counter, [seed as u32, (seed >> 32) as u32]);
    fusion_core::random::permutation(u64::from(high) << 32 | u64::from(low), n)
}
