//! Random initial weights.

use std::fmt;
use std::str::FromStr;

use fusion_core::random::Philox;
use fusion_core::{HostTensor, HostTensors};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::module::{Linear, Module, Stack, Sublayer, SublayerKind};
use super::{Parameter, parameters};
use crate::{Result, T5Config, position_bucket};

/// How random weights begin: T5's own initialisation, or one in which attention already does something of use
/// ("mimetic" initialisation, after Trockman and Kolter, arXiv 2305.09828). It has five parts, none of which
/// is enough alone.
///
/// A T5 that is pretrained from its own initialisation first learns which tokens follow which. On this plateau
/// the decoder does not read the encoder, because the encoder has nothing to tell that its own last token does
/// not. The parts make for a path that has: a sentinel in the decoder finds the same sentinel in the encoder,
/// where the tokens beside the hole have been gathered, and copies them. So does a token that follows a sentinel
/// in the decoder, to which attention has brought that sentinel.
///
/// Written as `t5`, `mimetic`, or the parts joined with `+`, such as `matching+local`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct Initialization {
    /// In cross-attention, queries and keys begin with the same weights: orthonormal rows times `√2 · d_kv^(-1/4)`.
    /// For normed `x` and `y`, whose squared norm is `d_model`, a head's score has the expectation
    /// `2 √d_kv · x·y / d_model`: `2 √d_kv` for equal vectors, 0 for unrelated ones, whose scores have a deviation
    /// of about 2.
    pub matching: bool,
    /// In all attention, the rows of `v` begin orthonormal, and `o` begins as `v`'s transpose, scaled to T5's
    /// deviation of `o`. Then `o·v` is a multiple of a projection, of the identity if the heads together are as wide
    /// as the model: what attention reads arrives in the residual stream as the vector that it was.
    pub copying: bool,
    /// The encoder's position bias begins at `-slope · distance`, the slopes of its heads falling
    /// geometrically from 1 to 1/8 (as in ALiBi, arXiv 2108.12409): heads gather what is near.
    pub local: bool,
    /// Heads begin as those that models come to have for what is a fixed distance before ("previous-token heads",
    /// Olsson et al. 2022, arXiv 2209.11895), by a position bias of 4 there and 0 elsewhere: in the encoder, every
    /// second head for the token before, instead of what `local` makes of it; in the decoder, all heads, in turn for
    /// distances of 1 to 4. The mean span has three tokens.
    pub previous: bool,
    /// In a stack of more than two blocks, what attention and MLPs add to the residual stream begins scaled by 2 over
    /// the number of blocks: all blocks together add no more than two would, so that a token can still be told at the
    /// end of the stack.
    pub depth: bool,
}

impl Initialization {
    /// That of Mesh TensorFlow and T5X.
    pub const T5: Initialization =
        Initialization { matching: false, copying: false, local: false, previous: false, depth: false };
    /// All parts.
    pub const MIMETIC: Initialization =
        Initialization { matching: true, copying: true, local: true, previous: true, depth: true };

    fn parts(&mut self) -> [(&'static str, &mut bool); 5] {
        let Initialization { matching, copying, local, previous, depth } = self;
        [
            ("matching", matching),
            ("copying", copying),
            ("local", local),
            ("previous", previous),
            ("depth", depth),
        ]
    }

    /// Whether it is T5's own.
    pub fn is_t5(&self) -> bool {
        *self == Self::T5
    }
}

/// How much larger than T5's scores the score of a match is: see [`Initialization::matching`].
const MATCH: f64 = 2.0;

/// The number of blocks up to which what they add is not scaled: see [`Initialization::depth`].
const SHALLOW: usize = 2;

/// The position bias of a distance that a head is for. Scores have a deviation of about 1.
const PREVIOUS: f32 = 4.0;
/// The farthest distance that heads of the decoder are for.
const FARTHEST_PREVIOUS: usize = 4;

/// Names no way to initialise weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is none of t5, mimetic, matching, copying, local, previous and depth; parts are joined with +, as in matching+local"
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
    let own = [Stack::Encoder, Stack::Decoder]
        .into_iter()
        .flat_map(|stack| stack.attentions(config, SublayerKind::SelfAttention));
    let cross = Stack::Decoder.attentions(config, SublayerKind::CrossAttention);
    let mut changed = Vec::new();
    if how.matching {
        changed.extend(cross.clone().map(|attention| (attention, Linear::Query)));
    }
    if how.copying {
        changed.extend(own.chain(cross).map(|attention| (attention, Linear::Value)));
    }
    // The slowest part, and each matrix is by itself.
    let orthogonal = |(attention, linear): (Sublayer, Linear)| {
        let stream = Philox::new(seed, &Module::Linear(attention, linear).weight());
        (attention, linear, orthogonal(&stream, config.inner_dim(), config.d_model))
    };
    let changed: Vec<_> = changed.into_par_iter().map(orthogonal).collect();
    for (attention, linear, matrix) in changed {
        let mut insert = |linear, tensor| weights.insert(Module::Linear(attention, linear).weight(), tensor);
        match linear {
            Linear::Query => {
                let both = matched(matrix, config);
                insert(Linear::Key, both.clone());
                insert(Linear::Query, both);
            }
            _ => {
                insert(Linear::AttentionOutput, copied(&matrix, config));
                insert(Linear::Value, matrix);
            }
        }
    }
    let of = |stack| Module::PositionBias(stack).weight();
    if how.local {
        weights.insert(of(Stack::Encoder), nearby(config));
    }
    if how.previous {
        // The others stay as they are.
        let encoder = (0..config.num_heads).step_by(2).map(|head| (head, 1));
        let decoder = (0..config.num_heads).map(|head| (head, 1 + head % FARTHEST_PREVIOUS));
        look_back(&mut weights, &of(Stack::Encoder), config, true, encoder);
        look_back(&mut weights, &of(Stack::Decoder), config, false, decoder);
    }
    if how.depth {
        for Parameter { module, spec, .. } in parameters(config)? {
            let Module::Linear(sublayer, linear) = module else { continue };
            let blocks = sublayer.stack.depth(config);
            if let Some(tensor) =
                weights.get_mut(&spec.name).filter(|_| linear.is_output() && blocks > SHALLOW)
            {
                let scale = SHALLOW as f32 / blocks as f32;
                tensor.data.iter_mut().for_each(|value| *value *= scale);
            }
        }
    }
    Ok(weights)
}

/// A random `[rows, columns]` with elements of deviation `columns^(-1/2)`: orthonormal rows if there are no more of
/// them than columns, otherwise orthogonal columns.
fn orthogonal(stream: &Philox, rows: usize, columns: usize) -> HostTensor {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut drawn = vec![0.0; count * length];
    stream.fill_normal(0, 1.0, &mut drawn);
    let mut vectors: Vec<Vec<f64>> =
        drawn.chunks(length).map(|vector| vector.iter().map(|x| f64::from(*x)).collect()).collect();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    for index in 0..count {
        let (before, rest) = vectors.split_at_mut(index);
        let vector = &mut rest[0];
        // Gram and Schmidt, twice, because the first pass leaves rounding errors.
        for other in before.iter().chain(before.iter()) {
            let share = dot(vector, other);
            vector.iter_mut().zip(other).for_each(|(x, y)| *x -= share * y);
        }
        let norm = dot(vector, vector).sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    let data = match rows <= columns {
        true => vectors.into_iter().flatten().map(|x| x as f32).collect(),
        false => {
            let scale = (rows as f64 / columns as f64).sqrt();
            let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
            places.map(|(row, column)| (scale * vectors[column][row]) as f32).collect()
        }
    };
    HostTensor { shape: vec![rows, columns], data }
}

/// [`Initialization::matching`]
fn matched(mut matrix: HostTensor, config: &T5Config) -> HostTensor {
    let scale = (MATCH / (config.d_kv as f64).sqrt()).sqrt() as f32;
    matrix.data.iter_mut().for_each(|x| *x *= scale);
    matrix
}

/// [`Initialization::copying`]: `o` for this `v`.
fn copied(HostTensor { data: value, .. }: &HostTensor, config: &T5Config) -> HostTensor {
    let (d_model, inner) = (config.d_model, config.inner_dim());
    let scale = (d_model as f64 / inner as f64).sqrt() as f32;
    let places = (0..d_model).flat_map(|row| (0..inner).map(move |column| (row, column)));
    let data = places.map(|(row, column)| scale * value[column * d_model + row]).collect();
    HostTensor { shape: vec![d_model, inner], data }
}

/// [`Initialization::local`]
fn nearby(config: &T5Config) -> HostTensor {
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
    bias
}

/// [`Initialization::previous`]: lets heads look back, each by its distance.
fn look_back(
    weights: &mut HostTensors,
    name: &str,
    config: &T5Config,
    bidirectional: bool,
    heads: impl Iterator<Item = (usize, usize)>,
) {
    let (buckets, farthest) = (config.relative_attention_num_buckets, config.relative_attention_max_distance);
    let Some(bias) = weights.get_mut(name) else { return };
    for (head, distance) in heads {
        let wanted = position_bucket(-(distance as i64), bidirectional, buckets, farthest);
        for bucket in 0..buckets {
            bias.data[bucket * config.num_heads + head] = if bucket == wanted { PREVIOUS } else { 0.0 };
        }
    }
}
