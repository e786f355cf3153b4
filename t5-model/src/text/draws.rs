//! Random permutations and numbers determined by a seed and a purpose.

use fusion_core::random::philox4x32;

/// A draw's purpose. Different uses of a seed are independent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Draw {
    NoiseSpans = 0,
    KeptSpans = 1,
    Files = 2,
    Chunks = 3,
    Denoiser = 4,
    Prefix = 5,
}

/// A random permutation of `0..n`. `number` counts chunks or blocks within the epoch.
pub(super) fn permutation(n: usize, draw: Draw, seed: u64, epoch: u64, number: u64) -> Vec<usize> {
    fusion_core::random::permutation(bits(draw, seed, epoch, number), n)
}

/// A random number of at least 0 and below 1.
pub(super) fn uniform(draw: Draw, seed: u64, epoch: u64, number: u64) -> f64 {
    (bits(draw, seed, epoch, number) >> 11) as f64 / (1u64 << 53) as f64
}

fn bits(draw: Draw, seed: u64, epoch: u64, number: u64) -> u64 {
    let counter = [number as u32, (number >> 32) as u32, epoch as u32, draw as u32];
    let [low, high, ..] = philox4x32(counter, [seed as u32, (seed >> 32) as u32]);
    u64::from(high) << 32 | u64::from(low)
}
