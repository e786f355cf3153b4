//! Optimisers, each following its published definition: as rules for devices, and as an implementation on the
//! host.

#[cfg_attr(not(feature = "compute"), expect(dead_code, reason = "nothing is trained"))]
mod adafactor;
#[cfg_attr(not(feature = "compute"), expect(dead_code, reason = "nothing is trained"))]
mod adamw;
mod carry;
mod moments;
#[cfg(feature = "compute")]
mod muon;
mod options;
mod schedule;
mod state;

use std::fmt;

#[cfg(feature = "clap")]
use clap::builder::PossibleValue;
use fusion_core::HostTensor;
use fusion_core::table::{Axis, Dim, ParamTable};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use adafactor::AdafactorStep;
pub use adamw::AdamwStep;
pub use carry::{CarriedState, CarryOptimizer};
use moments::Moment;
pub use moments::Moments;
#[cfg(feature = "compute")]
pub use muon::MuonStep;
pub use options::{DecayOptions, OptimizerOptions};
#[cfg(feature = "train")]
pub(crate) use schedule::WARM_UP_SHARE;
pub use schedule::{Decay, DecayShape, Schedule};
pub use state::{OptimizerState, write_optimizer_state};

/// A rule that turns gradients into updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Optimizer {
    /// Loshchilov and Hutter (arXiv 1711.05101), as in PyTorch.
    Adamw {
        /// Decay of the mean of gradients.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay of the mean of their squares.
        #[serde(default = "beta2")]
        beta2: f64,
        /// Added to the root of the mean of squares.
        #[serde(default = "adamw_epsilon")]
        epsilon: f64,
        /// Share of the weights that a step takes away, times the learning rate.
        #[serde(default)]
        weight_decay: f64,
    },
    /// nanoT5's AdamWScale: AdamW whose update is scaled by `max(1e-3, RMS(weights))`.
    AdamwScale {
        /// Decay of the mean of gradients.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay of the mean of their squares.
        #[serde(default = "beta2")]
        beta2: f64,
        /// Added to the root of the mean of squares.
        #[serde(default = "adamw_scale_epsilon")]
        epsilon: f64,
        /// Share of the weights that a step takes away, times the learning rate.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Shazeer and Stern (arXiv 1804.04235) as in T5X: parameter scaling, update clipping, no momentum,
    /// factored where both dimensions are at least `min_dim_size_to_factor`.
    Adafactor {
        /// The decay of the mean of squares at step `t` is `1 - t^-decay_rate`.
        #[serde(default = "decay_rate")]
        decay_rate: f64,
        /// Root mean square that a parameter's change is scaled down to.
        #[serde(default = "clip_threshold")]
        clip_threshold: f64,
        /// Smallest dimension of a matrix whose squares are kept as factors.
        #[serde(default = "min_dim_size_to_factor")]
        min_dim_size_to_factor: usize,
    },
    /// Jordan et al. 2024, as in PyTorch, for the matrices of attention and MLPs: updates have singular values of
    /// about 1. The other parameters are updated as by AdamWScale, at the same learning rate.
    Muon {
        /// Decay of the mean of gradients of matrices.
        #[serde(default = "momentum")]
        momentum: f64,
        /// Decay of the mean of other parameters' gradients.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay of the mean of their squares.
        #[serde(default = "beta2")]
        beta2: f64,
        /// Added to the root of the mean of squares.
        #[serde(default = "adamw_scale_epsilon")]
        epsilon: f64,
        /// Share of the weights that a step takes away, times the learning rate.
        #[serde(default)]
        weight_decay: f64,
    },
}

/// What a parameter is to an optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A norm's gain; weight decay does not apply to it.
    Gain,
    /// The matrix of a linear map between activations.
    Matrix,
    /// A table of vectors: the embedding, the output head, or a position bias.
    Table,
}

impl Role {
    /// The role of a parameter with these dimensions.
    pub fn of(dims: &[Dim]) -> Role {
        let rows =
            |factor: &fusion_core::table::Factor| matches!(factor.axis, Axis::Vocab | Axis::RelposBuckets);
        match dims {
            [_, _, ..] if dims.iter().any(|dim| dim.factors.iter().any(rows)) => Role::Table,
            [_, _, ..] => Role::Matrix,
            _ => Role::Gain,
        }
    }
}

const fn beta1() -> f64 {
    0.9
}
const fn beta2() -> f64 {
    0.999
}
const fn adamw_epsilon() -> f64 {
    1e-8
}
const fn adamw_scale_epsilon() -> f64 {
    1e-6
}
const fn decay_rate() -> f64 {
    0.8
}
const fn clip_threshold() -> f64 {
    1.0
}
const fn min_dim_size_to_factor() -> usize {
    128
}
const fn momentum() -> f64 {
    0.95
}

impl Optimizer {
    /// AdamW with PyTorch's settings, without weight decay.
    pub const fn adamw() -> Self {
        Optimizer::Adamw { beta1: beta1(), beta2: beta2(), epsilon: adamw_epsilon(), weight_decay: 0.0 }
    }

    /// nanoT5's settings.
    pub const fn adamw_scale() -> Self {
        Optimizer::AdamwScale {
            beta1: beta1(),
            beta2: beta2(),
            epsilon: adamw_scale_epsilon(),
            weight_decay: 0.0,
        }
    }

    /// T5's settings.
    pub const fn adafactor() -> Self {
        Optimizer::Adafactor {
            decay_rate: decay_rate(),
            clip_threshold: clip_threshold(),
            min_dim_size_to_factor: min_dim_size_to_factor(),
        }
    }

    /// Muon's settings in PyTorch, without weight decay, and nanoT5's for other parameters.
    pub const fn muon() -> Self {
        Optimizer::Muon {
            momentum: momentum(),
            beta1: beta1(),
            beta2: beta2(),
            epsilon: adamw_scale_epsilon(),
            weight_decay: 0.0,
        }
    }

    /// What is wrong with the settings, if anything.
    pub fn problem(&self) -> Option<String> {
        let outside = |name: &str, value: f64, low: f64, high: f64| {
            (!(low..high).contains(&value))
                .then(|| format!("{name} is {value}; it must be at least {low} and below {high}"))
        };
        match *self {
            Optimizer::Adamw { beta1, beta2, epsilon, weight_decay }
            | Optimizer::AdamwScale { beta1, beta2, epsilon, weight_decay }
            | Optimizer::Muon { beta1, beta2, epsilon, weight_decay, .. } => {
                let momentum = match *self {
                    Optimizer::Muon { momentum, .. } => outside("momentum", momentum, 0.0, 1.0),
                    _ => None,
                };
                momentum
                    .or_else(|| outside("beta1", beta1, 0.0, 1.0))
                    .or_else(|| outside("beta2", beta2, 0.0, 1.0))
                    .or_else(|| outside("epsilon", epsilon, f64::MIN_POSITIVE, 1.0))
                    .or_else(|| outside("weight_decay", weight_decay, 0.0, 1.0))
            }
            Optimizer::Adafactor { decay_rate, clip_threshold, .. } => {
                outside("decay_rate", decay_rate, f64::MIN_POSITIVE, 10.0)
                    .or_else(|| outside("clip_threshold", clip_threshold, f64::MIN_POSITIVE, f64::MAX))
            }
        }
    }

    /// The moments it keeps for a parameter of that shape.
    fn moments(&self, shape: &[usize], role: Role) -> &'static [Moment] {
        match self {
            Optimizer::Muon { .. } if role == Role::Matrix => &[Moment::Mean],
            Optimizer::Adamw { .. } | Optimizer::AdamwScale { .. } | Optimizer::Muon { .. } => {
                &[Moment::Mean, Moment::Squares]
            }
            Optimizer::Adafactor { min_dim_size_to_factor, .. } => {
                match adafactor::is_factored(shape, *min_dim_size_to_factor) {
                    true => &[Moment::Rows, Moment::Columns],
                    false => &[Moment::Squares],
                }
            }
        }
    }

    /// The size of the moments of all parameters in bytes.
    pub fn state_size(&self, table: &ParamTable) -> u64 {
        table.iter().map(|spec| self.moments_size(&spec.dims)).sum()
    }

    /// The size of a parameter's moments in bytes.
    fn moments_size(&self, dims: &[Dim]) -> u64 {
        let shape: Vec<usize> = dims.iter().map(Dim::size).collect();
        let elements =
            |moment: &Moment| moment.shape(&shape).iter().map(|size| *size as u64).product::<u64>();
        4 * self.moments(&shape, Role::of(dims)).iter().map(elements).sum::<u64>()
    }

    /// Whether both optimisers average alike, so that one can continue with the moments of the other.
    pub fn averages_like(&self, other: &Optimizer) -> bool {
        use Optimizer::{Adafactor, Adamw, AdamwScale, Muon};
        match (self, other) {
            (Adamw { beta1, beta2, .. }, Adamw { beta1: first, beta2: second, .. })
            | (AdamwScale { beta1, beta2, .. }, AdamwScale { beta1: first, beta2: second, .. }) => {
                (beta1, beta2) == (first, second)
            }
            (
                Adafactor { decay_rate, min_dim_size_to_factor, .. },
                Adafactor { decay_rate: rate, min_dim_size_to_factor: size, .. },
            ) => (decay_rate, min_dim_size_to_factor) == (rate, size),
            (
                Muon { momentum, beta1, beta2, .. },
                Muon { momentum: other, beta1: first, beta2: second, .. },
            ) => (momentum, beta1, beta2) == (other, first, second),
            _ => false,
        }
    }

    /// The share of a moment, started at zero, that consists of gradients after `step` steps; bias
    /// corrections divide by it.
    fn fullness(&self, moment: Moment, role: Role, step: u64) -> f64 {
        let steps = i32::try_from(step).unwrap_or(i32::MAX);
        match self {
            // Whose update does not depend on the gradients' size.
            Optimizer::Muon { .. } if role == Role::Matrix => 1.0,
            Optimizer::Adamw { beta1, beta2, .. }
            | Optimizer::AdamwScale { beta1, beta2, .. }
            | Optimizer::Muon { beta1, beta2, .. } => {
                1.0 - if moment == Moment::Mean { beta1 } else { beta2 }.powi(steps)
            }
            Optimizer::Adafactor { .. } => 1.0, // the first step's decay is 0
        }
    }
}

#[cfg(feature = "clap")]
impl clap::ValueEnum for Optimizer {
    fn value_variants<'a>() -> &'a [Self] {
        const { &[Optimizer::adamw(), Optimizer::adamw_scale(), Optimizer::adafactor(), Optimizer::muon()] }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Optimizer::Adamw { .. } => PossibleValue::new("adamw").help("AdamW, as in PyTorch"),
            Optimizer::AdamwScale { .. } => PossibleValue::new("adamw_scale")
                .alias("adamw-scale")
                .help("nanoT5's AdamW, with updates scaled by the weights' root mean square"),
            Optimizer::Adafactor { .. } => PossibleValue::new("adafactor").help("T5's optimiser"),
            Optimizer::Muon { .. } => PossibleValue::new("muon")
                .help("Muon for the matrices of attention and MLPs, adamw-scale for the rest"),
        })
    }
}

impl fmt::Display for Optimizer {
    /// Its name, and the settings that its averages depend on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Optimizer::Adamw { beta1, beta2, .. } => write!(f, "adamw (betas {beta1}, {beta2})"),
            Optimizer::AdamwScale { beta1, beta2, .. } => write!(f, "adamw_scale (betas {beta1}, {beta2})"),
            Optimizer::Adafactor { decay_rate, min_dim_size_to_factor, .. } => {
                write!(f, "adafactor (decay rate {decay_rate}, factored from {min_dim_size_to_factor} on)")
            }
            Optimizer::Muon { momentum, beta1, beta2, .. } => {
                write!(f, "muon (momentum {momentum}, betas {beta1}, {beta2})")
            }
        }
    }
}

/// The update of one parameter.
#[derive(Clone, Copy, Debug)]
pub struct ParameterUpdate {
    /// The rule.
    pub optimizer: Optimizer,
    /// Factor for the change.
    pub learning_rate: f64,
    /// The number of updates since the moments were empty, including this one.
    pub step: u64,
    /// Factor for the gradient, from clipping.
    pub gradient_scale: f32,
    /// What the parameter is.
    pub role: Role,
}

/// An update with its constants precomputed.
#[cfg(feature = "compute")]
#[derive(Clone, Copy, Debug)]
pub enum UpdateRule {
    /// AdamW or AdamWScale.
    Adamw(AdamwStep),
    /// Adafactor.
    Adafactor(AdafactorStep),
    /// Muon.
    Muon(MuonStep),
}

#[cfg(feature = "compute")]
impl ParameterUpdate {
    /// The rule for a parameter of this shape.
    pub fn rule(&self, shape: &[usize]) -> UpdateRule {
        match self.optimizer {
            Optimizer::Adamw { beta1, beta2, epsilon, weight_decay } => {
                UpdateRule::Adamw(AdamwStep::new(self, [beta1, beta2], epsilon, weight_decay, false))
            }
            Optimizer::Muon { momentum, weight_decay, .. } if self.role == Role::Matrix => {
                UpdateRule::Muon(MuonStep::new(self, momentum, weight_decay, shape))
            }
            Optimizer::AdamwScale { beta1, beta2, epsilon, weight_decay }
            | Optimizer::Muon { beta1, beta2, epsilon, weight_decay, .. } => {
                UpdateRule::Adamw(AdamwStep::new(self, [beta1, beta2], epsilon, weight_decay, true))
            }
            Optimizer::Adafactor { decay_rate, clip_threshold, min_dim_size_to_factor } => {
                let factored = adafactor::is_factored(shape, min_dim_size_to_factor);
                UpdateRule::Adafactor(AdafactorStep::new(self, decay_rate, clip_threshold, factored))
            }
        }
    }

    /// Updates `weights`, whose shape has one or two dimensions, on the host. Missing moments start at zero.
    /// The result does not depend on the number of threads.
    pub fn apply(
        &self,
        shape: &[usize],
        weights: &mut [f32],
        gradient: &[f32],
        moments: &mut Moments<HostTensor>,
    ) {
        match self.rule(shape) {
            UpdateRule::Adamw(step) => step.apply(shape, weights, gradient, moments),
            UpdateRule::Adafactor(step) => step.apply(shape, weights, gradient, moments),
            UpdateRule::Muon(step) => step.apply(shape, weights, gradient, moments),
        }
    }
}

/// The number of elements per thread at a time. Fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// The sum of squares in f64.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let partial: Vec<f64> = values.par_chunks(CHUNK).map(chunk_sum_of_squares).collect();
    partial.iter().sum()
}

fn chunk_sum_of_squares(values: &[f32]) -> f64 {
    // Independent lanes, so that the loop vectorises.
    let mut lanes = [0f64; 8];
    let chunks = values.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|value| f64::from(*value).powi(2)).sum();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

fn zeros(shape: &[usize]) -> HostTensor {
    HostTensor::zeros(shape)
}

/// `max(1e-3, RMS)`, the scale of a parameter in Adafactor and AdamWScale.
fn parameter_scale(weights: &[f32]) -> f64 {
    (sum_of_squares(weights) / weights.len().max(1) as f64).sqrt().max(1e-3)
}
