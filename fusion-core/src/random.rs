//! Counter-based random numbers: every draw is a function of a key and an index, so results depend neither on the order of
//! the draws nor on the number of threads.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011).

use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// One block of Philox4x32-10: four uniform 32-bit words.
#[inline]
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        let (a_high, a_low) = ((a >> 32) as u32, a as u32);
        let (b_high, b_low) = ((b >> 32) as u32, b as u32);
        counter = [b_high ^ counter[1] ^ key[0], b_low, a_high ^ counter[3] ^ key[1], a_low];
    }
    counter
}

/// A stream of random numbers with random access. Blocks of four words are numbered from 0; number `index` of a stream of
/// uniform or normal numbers comes from one word, or from one pair of words, of block `index / 4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// The stream of a seed and a name. The key is the start of a SHA-256 hash, so streams with different names are
    /// unrelated, and a stream is the same on every machine.
    pub fn new(seed: u64, name: &str) -> Self {
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
        let word =
            |at: usize| u32::from_le_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]);
        Philox { key: [word(0), word(4)] }
    }

    /// The key of every block.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }

    /// The four words of a block.
    #[inline]
    pub fn block(&self, index: u64) -> [u32; 4] {
        philox4x32([index as u32, (index >> 32) as u32, 0, 0], self.key)
    }

    /// A uniform number in `[0, 1)`, a multiple of 2^-24.
    #[inline]
    pub fn uniform(&self, index: u64) -> f32 {
        unit(self.block(index / 4)[(index % 4) as usize])
    }

    /// A normal number with mean 0 and standard deviation 1 (Box–Muller; at most 6.7 in magnitude).
    #[inline]
    pub fn normal(&self, index: u64) -> f64 {
        normals_of(self.block(index / 4))[(index % 4) as usize]
    }

    /// The normal numbers from an index on: the values of [`Philox::normal`], at a quarter of the cost.
    pub fn normals(self, first: u64) -> impl Iterator<Item = f64> {
        let blocks = (first / 4..).flat_map(move |index| normals_of(self.block(index)));
        blocks.skip((first % 4) as usize)
    }

    /// Fills a slice with the numbers of [`Philox::uniform`] from `first` on, in parallel.
    pub fn fill_uniform(&self, first: u64, out: &mut [f32]) {
        self.fill(first, out, |words| words.map(unit));
    }

    /// Fills a slice with the numbers of [`Philox::normal`] from `first` on, times a standard deviation, in parallel.
    pub fn fill_normal(&self, first: u64, std: f64, out: &mut [f32]) {
        self.fill(first, out, |words| normals_of(words).map(|normal| (std * normal) as f32));
    }

    fn fill(&self, first: u64, out: &mut [f32], values: impl Fn([u32; 4]) -> [f32; 4] + Sync) {
        // Up to the next block, then whole blocks, of which the last may be used in part.
        let (head, rest) = out.split_at_mut(out.len().min((4 - first % 4) as usize % 4));
        if !head.is_empty() {
            let (values, start) = (values(self.block(first / 4)), (first % 4) as usize);
            head.iter_mut().zip(&values[start..]).for_each(|(out, value)| *out = *value);
        }
        let first_block = first.div_ceil(4);
        rest.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
            let blocks = first_block + (chunk * CHUNK / 4) as u64..;
            for (out, block) in out.chunks_mut(4).zip(blocks) {
                out.iter_mut().zip(values(self.block(block))).for_each(|(out, value)| *out = value);
            }
        });
    }
}

/// The number of elements that a thread fills at a time, a multiple of the four in a block.
const CHUNK: usize = 1 << 14;

/// The high 24 bits as a fraction.
#[inline]
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 / (1u32 << 24) as f32
}

#[inline]
fn normals_of([a, b, c, d]: [u32; 4]) -> [f64; 4] {
    let pair = |radius: u32, angle: u32| {
        // In (0, 1], for the logarithm.
        let radius = (-2.0 * ((f64::from(radius) + 1.0) / 4_294_967_296.0).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * (f64::from(angle) / 4_294_967_296.0)).sin_cos();
        [radius * cos, radius * sin]
    };
    let ([first, second], [third, fourth]) = (pair(a, b), pair(c, d));
    [first, second, third, fourth]
}

/// A random permutation of `0..n` (Fisher–Yates), a function of the seed.
pub fn permutation(seed: u64, n: usize) -> Vec<usize> {
    let stream = Philox::new(seed, "permutation");
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        let [low, high, ..] = stream.block(last as u64);
        let draw = u64::from(high) << 32 | u64::from(low);
        // A 64-bit fraction of the interval: its bias is below n / 2^64.
        let chosen = ((u128::from(draw) * (last as u128 + 1)) >> 64) as usize;
        order.swap(last, chosen);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known-answer vectors of the Random123 library (`kat_vectors`, philox4x32 with 10 rounds).
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]
        );
        let counter = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        let key = [0xa4093822, 0x299f31d0];
        assert_eq!(philox4x32(counter, key), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn bulk_and_single_draws_agree() {
        let stream = Philox::new(7, "decoder");
        for first in [0, 1, 3, 1 << 40] {
            let mut normals = vec![0.0; 3 * CHUNK + 5];
            let mut uniforms = normals.clone();
            stream.fill_normal(first, 2.0, &mut normals);
            stream.fill_uniform(first, &mut uniforms);
            for offset in [0, 1, 2, 3, 4, CHUNK - 1, CHUNK, 3 * CHUNK + 4] {
                assert_eq!(normals[offset], (2.0 * stream.normal(first + offset as u64)) as f32);
                assert_eq!(uniforms[offset], stream.uniform(first + offset as u64));
            }
        }
    }

    #[test]
    fn moments() {
        let count = 1 << 20;
        let stream = Philox::new(1, "moments");
        let mut draws = vec![0.0; count];
        stream.fill_normal(0, 1.0, &mut draws);
        let moment = |power: i32| draws.iter().map(|x| f64::from(*x).powi(power)).sum::<f64>() / count as f64;
        for (power, expected, deviation) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let tolerance = 5.0 * f64::sqrt(deviation / count as f64);
            assert!((moment(power) - expected).abs() < tolerance, "moment {power} is {}", moment(power));
        }
        // Neighbours share a block, so check that they are uncorrelated.
        let product: f64 = draws.windows(2).map(|pair| f64::from(pair[0]) * f64::from(pair[1])).sum();
        assert!((product / count as f64).abs() < 5.0 / (count as f64).sqrt());
        let mean = (0..count as u64).map(|i| f64::from(stream.uniform(i))).sum::<f64>() / count as f64;
        assert!((mean - 0.5).abs() < 5.0 / (12.0 * count as f64).sqrt());
    }

    #[test]
    fn streams_differ_by_seed_and_name() {
        let first = Philox::new(1, "a").block(0);
        assert_ne!(first, Philox::new(2, "a").block(0));
        assert_ne!(first, Philox::new(1, "b").block(0));
        assert_ne!(first, Philox::new(1, "a").block(1));
    }

    #[test]
    fn permutations() {
        assert_eq!(permutation(0, 0), Vec::<usize>::new());
        assert_eq!(permutation(0, 1), [0]);
        let order = permutation(3, 1000);
        assert_ne!(order, permutation(4, 1000));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        // Every element comes first equally often.
        let mut first = [0; 5];
        (0..5000).for_each(|seed| first[permutation(seed, 5)[0]] += 1);
        assert!(first.iter().all(|count| (850..1150).contains(count)), "{first:?}");
    }
}
