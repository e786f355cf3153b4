//! Random initial weights.

use std::fmt;
use std::str::FromStr;

use fusion_core::random::Philox;
use fusion_core::{HostTensor, HostTensors};
use serde::{Deserialize, Serialize};

use super::module::{Linear, Module, Stack, Sublayer, SublayerKind};
use super::{Parameter, parameters};
use crate::{Result, T5Config, position_bucket};

/// How random weights begin: T5's own initialisation, or one in which attention already does something of use
/// ("mimetic" initialisation, after Trockman and Kolter, arXiv 2305.09828). It has three parts, none of which
/// is enough alone.
///
/// A T5 that is pretrained from its own initialisation first learns which tokens follow which. On this plateau
/// the decoder does not read the encoder, because the encoder has nothing to tell that its own last token does
/// not. The parts make for a path that has: a sentinel in the decoder finds the same sentinel in the encoder,
/// where the tokens beside the hole have been gathered, and copies them.
///
/// Written as `t5`, `mimetic`, or the parts joined with `+`, such as `matching+local`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct Initialization {
    /// In cross-attention, a head's queries and keys begin with the same weights `W`, of deviation
    /// `(d_model · √d_kv)^(-1/2)`. For normed `x` and `y`, whose squared norm is `d_model`, the score
    /// `(Wx)·(Wy)` has the expectation `x·y / d_model · √d_kv`: `√d_kv` for equal vectors, 0 for unrelated
    /// ones. Its deviation is 1 for these, as in T5.
    pub matching: bool,
    /// In the encoder's self-attention and in cross-attention, `o` begins as the transpose of `v`, scaled to T5's
    /// deviation of `o`. The expectation of `o·v` is a multiple of the identity, so what attention reads
    /// arrives in the residual stream as the vector that it was.
    pub copying: bool,
    /// The encoder's position bias begins at `-slope · distance`, the slopes of its heads falling
    /// geometrically from 1 to 1/8 (as in ALiBi, arXiv 2108.12409): heads gather what is near.
    pub local: bool,
}

impl Initialization {
    /// That of Mesh TensorFlow and T5X.
    pub const T5: Initialization = Initialization { matching: false, copying: false, local: false };
    /// All parts.
    pub const MIMETIC: Initialization = Initialization { matching: true, copying: true, local: true };

    fn parts(&mut self) -> [(&'static str, &mut bool); 3] {
        [("matching", &mut self.matching), ("copying", &mut self.copying), ("local", &mut self.local)]
    }

    /// Whether it is T5's own.
    pub fn is_t5(&self) -> bool {
        *self == Self::T5
    }
}

/// Names no way to initialise weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is none of t5, mimetic, matching, copying and local; parts are joined with +, as in matching+local"
)]
pub struct UnknownInitialization(String);

impl FromStr for Initialization {
    type Err = UnknownInitialization;

    fn from_str(text: &str) -> Result<Self, UnknownInitialization> {
        let mut found = Initialization::T5;
        match text {
            "t5" => {}
            "mimetic" => found = Initialization::MIMETIC,
            _ => {
                for part in text.split('+') {
                    let mut parts = found.parts().into_iter();
                    let known = parts.find(|(name, _)| *name == part);
                    let (_, chosen) = known.ok_or_else(|| UnknownInitialization(part.into()))?;
                    *chosen = true;
                }
            }
        }
        Ok(found)
    }
}

impl TryFrom<String> for Initialization {
    type Error = UnknownInitialization;

    fn try_from(text: String) -> Result<Self, UnknownInitialization> {
        text.parse()
    }
}

impl From<Initialization> for String {
    fn from(initialization: Initialization) -> String {
        initialization.to_string()
    }
}

impl fmt::Display for Initialization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Initialization::T5 => f.write_str("t5"),
            Initialization::MIMETIC => f.write_str("mimetic"),
            mut some => {
                let chosen = some.parts().into_iter().filter(|(_, chosen)| **chosen);
                f.write_str(&chosen.map(|(name, _)| name).collect::<Vec<_>>().join("+"))
            }
        }
    }
}

/// Fresh weights: the table's [deviations](super::Parameter::initial_deviation), and what `how` changes. Each
/// tensor is a function of the seed and of names alone.
///
/// # Errors
/// The configuration is not that of a T5.
pub fn initialize(config: &T5Config, how: Initialization, seed: u64) -> Result<HostTensors> {
    let rows = parameters(config)?.into_iter();
    let mut weights: HostTensors = rows
        .map(|Parameter { spec, initial_deviation, .. }| {
            let (name, mut tensor) = (spec.name.clone(), HostTensor::zeros(spec.shape()));
            match initial_deviation {
                None => tensor.data.fill(1.0),
                Some(std) => Philox::new(seed, &name).fill_normal(0, std, &mut tensor.data),
            }
            (name, tensor)
        })
        .collect();
    if how.matching {
        for block in 0..config.num_decoder_layers() {
            let cross = Stack::Decoder.sublayer(block, SublayerKind::CrossAttention);
            match_tokens(&mut weights, config, cross, seed);
        }
    }
    if how.copying {
        for (stack, kind) in
            [(Stack::Encoder, SublayerKind::SelfAttention), (Stack::Decoder, SublayerKind::CrossAttention)]
        {
            for block in 0..stack.depth(config) {
                copy_values(&mut weights, config, stack.sublayer(block, kind));
            }
        }
    }
    if how.local {
        look_nearby(&mut weights, config);
    }
    Ok(weights)
}

/// [`Initialization::matching`]
fn match_tokens(weights: &mut HostTensors, config: &T5Config, cross: Sublayer, seed: u64) {
    let query = Module::Linear(cross, Linear::Query).weight();
    let deviation = (config.d_model as f64 * (config.d_kv as f64).sqrt()).powf(-0.5);
    let mut both = HostTensor::zeros(weights[&query].shape.clone());
    Philox::new(seed, &query).fill_normal(0, deviation, &mut both.data);
    weights.insert(Module::Linear(cross, Linear::Key).weight(), both.clone());
    weights.insert(query, both);
}

/// [`Initialization::copying`]
fn copy_values(weights: &mut HostTensors, config: &T5Config, attention: Sublayer) {
    let value = &weights[&Module::Linear(attention, Linear::Value).weight()].data; // [inner, d_model]
    let (d_model, inner) = (config.d_model, config.inner_dim());
    let scale = (d_model as f64 / inner as f64).sqrt() as f32;
    let transposed = (0..d_model).flat_map(|row| (0..inner).map(move |column| (row, column)));
    let data = transposed.map(|(row, column)| scale * value[column * d_model + row]).collect();
    let output = Module::Linear(attention, Linear::AttentionOutput).weight();
    weights.insert(output, HostTensor { shape: vec![d_model, inner], data });
}

/// [`Initialization::local`]
fn look_nearby(weights: &mut HostTensors, config: &T5Config) {
    let (buckets, farthest) = (config.relative_attention_num_buckets, config.relative_attention_max_distance);
    let heads = config.num_heads;
    let steepness = |head: usize| 0.125_f64.powf(head as f64 / (heads.max(2) - 1) as f64);
    let mut bias = HostTensor::zeros(vec![buckets, heads]);
    // A bucket's distance is the smallest that it holds.
    let mut filled = vec![false; buckets];
    for distance in 0..=farthest as i64 {
        for offset in [-distance, distance] {
            let bucket = position_bucket(offset, true, buckets, farthest);
            if !std::mem::replace(&mut filled[bucket], true) {
                for head in 0..heads {
                    bias.data[bucket * heads + head] = (-steepness(head) * distance as f64) as f32;
                }
            }
        }
    }
    weights.insert(Module::PositionBias(Stack::Encoder).weight(), bias);
}
