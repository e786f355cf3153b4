//! Prefix language modelling: a chunk of tokens is cut in two, and the target continues the input (`prefix_lm` of
//! the T5 library; Raffel et al. 2020, Section 3.2.3).

use super::draws::{Draw, uniform};
use super::error::{Result, TextError};
use super::objective::Denoising;
use super::span_corruption::{ChunkKey, MAX_CHUNK};

/// Cuts chunks of one length into a prefix and what follows it, each of which ends with EOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLm {
    /// Tokens in a chunk.
    tokens: usize,
    /// The fewest and the most tokens that follow the prefix.
    following: (usize, usize),
}

impl PrefixLm {
    /// For inputs of up to `input_length` tokens: a chunk is one token shorter, so that any prefix of it fits, with
    /// EOS (`split_tokens_to_inputs_length`).
    ///
    /// How many tokens follow the prefix is uniformly distributed, as widely as it can be around a share
    /// `noise_density` of the chunk. With 0.5 the prefix has any length with the same probability
    /// (`random_prefix_noise_mask`, which knows no other density).
    ///
    /// # Errors
    /// If the input is too short to be cut, or the density not above 0 and below 1.
    pub fn new(input_length: usize, noise_density: f64) -> Result<Self> {
        Denoising::Prefix { noise_density }.check()?;
        if input_length < 3 {
            return Err(TextError::PrefixInputLength { input_length });
        }
        if input_length > MAX_CHUNK {
            return Err(TextError::ChunkTooLong { input_length, limit: MAX_CHUNK });
        }
        let tokens = input_length - 1;
        let (mean, around) = (noise_density * tokens as f64, noise_density.min(1.0 - noise_density));
        let around = around * tokens as f64;
        let fewest = ((mean - around).floor() as usize + 1).clamp(1, tokens - 1);
        let most = ((mean + around).ceil() as usize).saturating_sub(1).clamp(fewest, tokens - 1);
        Ok(Self { tokens, following: (fewest, most) })
    }

    /// Tokens in a chunk.
    pub fn chunk_length(&self) -> usize {
        self.tokens
    }

    /// Tokens of the longest input, with EOS.
    pub fn longest_input(&self) -> usize {
        self.tokens - self.following.0 + 1
    }

    /// Tokens of the longest target, with EOS.
    pub fn longest_target(&self) -> usize {
        self.following.1 + 1
    }

    /// The number of a chunk's tokens that follow its prefix.
    pub fn following(&self, key: ChunkKey) -> usize {
        let (fewest, most) = self.following;
        let drawn = uniform(Draw::Prefix, key.seed, key.epoch, key.chunk) * (most - fewest + 1) as f64;
        fewest + (drawn as usize).min(most - fewest)
    }
}
