//! How models are fused or grown: what commands and recipes specify besides the models.

use fusion_core::checkpoint::WeightType;
use fusion_core::grow::DirectSum;
use fusion_core::plan::{Direction, Fill, FusionPlan, Normalisation, StandardDeviation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Arrangement, Cross, DepthAlignment, FusionParent, Grown, Method, NewBlocks, Widths};
use crate::Result;
use crate::optimizer::CarryOptimizer;

/// A method with its options. Options of other methods are refused.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MethodSettings {
    /// The method that makes the child.
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME", value_enum, default_value_t))]
    pub method: Method,
    /// Normalise each parent's slice separately (property: exact) or all slices as one vector (rule: stock
    /// T5) [default: property]
    #[cfg_attr(feature = "clap", arg(long, value_enum))]
    pub norm: Option<Normalisation>,
    /// The noise: zero, normal:STD (absolute), relative:SHARE (of the weights' root mean square) or db:BELOW
    /// (decibels below it). It fills the cross-connections of a fusion, and makes copies differ in hyperclone
    /// and net2net
    #[cfg_attr(feature = "clap", arg(long, default_value_t, allow_hyphen_values = true))]
    pub cross: Cross,
    /// Which parents the cross-connections join.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t))]
    pub direction: Direction,
    /// Seed for all random numbers.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t))]
    pub seed: u64,
    /// How many times to use a single parent (fuse, self), or the factor by which widths (hyperclone) or
    /// numbers of blocks (stack) grow [default: 2, but 1 for fuse]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub times: Option<usize>,
    /// The parents' weights in the average, which must sum to 1 [default: all equal]
    #[cfg_attr(feature = "clap", arg(long, value_name = "W,…", value_delimiter = ','))]
    pub weights: Option<Vec<f64>>,
    /// Which of the child's blocks a parent with fewer blocks occupies; the others pass its features through
    /// [default: bottom]
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHERE", value_enum))]
    pub depth: Option<DepthAlignment>,
    /// The child's d_model, a multiple of the parent's (net2net, lemon).
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub d_model: Option<usize>,
    /// The child's number of heads (net2net, lemon).
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub num_heads: Option<usize>,
    /// The child's d_ff (net2net, lemon).
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub d_ff: Option<usize>,
    /// Where copies of blocks go (stack) [default: repeat]
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHERE", value_enum))]
    pub arrangement: Option<Arrangement>,
    /// What copies of blocks do initially (stack) [default: active]
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHAT", value_enum))]
    pub new_blocks: Option<NewBlocks>,
    /// What to do with the optimiser states stored with the parents' weights.
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHAT", value_enum, default_value_t))]
    pub optimizer: CarryOptimizer,
    /// Type of the fused weights [default: the parents']
    #[cfg_attr(feature = "clap", arg(long, value_enum))]
    pub dtype: Option<WeightType>,
}

/// The maximum number of copies of a model in a child.
const MAX_TIMES: usize = 256;

/// Settings that no method supports.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant means")]
pub enum SettingsError {
    #[error("`{option}` is not an option of method {method}, but of {}", methods_with(option))]
    NotAnOption { option: &'static str, method: Method },
    #[error(
        "`optimizer`: stacked blocks change every gradient unless they are silent, so a state can only be reset"
    )]
    StackedState,
    #[error("`times` is {times}; it is at least 1, 2 for self fusion, and at most {MAX_TIMES}")]
    Times { times: usize },
    #[error("`times` repeats a single parent, but there are {parents}; name a parent twice instead")]
    Repeated { parents: usize },
    #[error(
        "method {method} grows one model, but there are {parents}; method {} joins several",
        Method::default()
    )]
    OneParent { method: Method, parents: usize },
}

fn methods_with(option: &str) -> String {
    Method::all().filter(|method| method.takes(option)).map(Method::name).collect::<Vec<_>>().join(", ")
}

impl MethodSettings {
    /// Checks that the options belong to the method and suit this number of parents.
    pub fn check(&self, parents: usize) -> Result<(), SettingsError> {
        let method = self.method;
        // A value that is not the default was given.
        let (own, default) = (json!(self), json!(MethodSettings::default()));
        let mut options = Method::all().flat_map(|method| method.0.options).copied();
        let refused = |option: &&str| own[*option] != default[*option] && !method.takes(option);
        if let Some(option) = options.find(refused) {
            return Err(SettingsError::NotAnOption { option, method });
        }
        (method.0.check)(self)?;
        let times = self.times.unwrap_or(1);
        if !(1..=MAX_TIMES).contains(&times) {
            return Err(SettingsError::Times { times });
        }
        match parents {
            1 => Ok(()),
            _ if !method.joins() => Err(SettingsError::OneParent { method, parents }),
            _ if times != 1 => Err(SettingsError::Repeated { parents }),
            _ => Ok(()),
        }
    }

    /// How many times the plan uses a parent that is named once.
    pub fn parent_copies(&self) -> usize {
        (self.method.0.copies)(self)
    }

    /// Plans the child of parents whose number [`MethodSettings::check`] has accepted, each repeated [as
    /// often as it is used](MethodSettings::parent_copies).
    pub fn plan(&self, parents: &[FusionParent]) -> Result<Grown> {
        (self.method.0.grow)(self, parents)
    }

    /// Whether the child depends on the seed: on noise, or on which features are copied.
    pub fn is_random(&self) -> bool {
        self.cross != Cross::Zero || self.method.takes("d_model")
    }

    /// The options that a lineage records because the plan does not contain them.
    pub fn recorded(&self, plan: &FusionPlan) -> Map<String, Value> {
        let mut options = (self.method.0.recorded)(self, plan);
        options.push(("optimizer", self.carries().then(|| json!(self.optimizer))));
        options.push(("dtype", self.dtype.map(|dtype| json!(dtype))));
        options.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// Whether the child starts with an optimiser's state.
    pub(super) fn carries(&self) -> bool {
        self.optimizer != CarryOptimizer::Reset
    }

    /// The factor by which a growing method multiplies.
    pub(super) fn times(&self) -> usize {
        self.times.unwrap_or(2)
    }

    pub(super) fn widths(&self) -> Widths {
        Widths { d_model: self.d_model, num_heads: self.num_heads, d_ff: self.d_ff }
    }

    /// The standard deviation and seed of the random part.
    pub(super) fn noise(&self) -> Option<(StandardDeviation, u64)> {
        self.cross.deviation().map(|std| (std, self.seed))
    }

    pub(super) fn direct_sum(&self) -> DirectSum {
        let direction = self.direction;
        let cross = self.noise().map_or(Fill::Zero, |(std, seed)| Fill::Normal { std, seed, direction });
        let normalisation = self.norm.unwrap_or(Normalisation::Property);
        DirectSum { normalisation, cross, weights: self.weights.clone() }
    }
}
