//! How models are fused or grown: what commands and recipes say besides the models' names.

use fusion_core::checkpoint::WeightType;
use fusion_core::grow::DirectSum;
use fusion_core::plan::{Direction, Fill, FusionPlan, Normalisation, StandardDeviation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Arrangement, Cross, DepthAlignment, FusionParent, Grown, Method, NewBlocks, Widths};
use crate::Result;
use crate::optimizer::CarryOptimizer;

/// A method with its options. Those of other methods are refused.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MethodSettings {
    #[serde(default)]
    pub method: Method,
    /// The normalisation of a fusion; the property if there is none.
    #[serde(default)]
    pub norm: Option<Normalisation>,
    #[serde(default)]
    pub cross: Cross,
    #[serde(default)]
    pub direction: Direction,
    /// Of everything that is random.
    #[serde(default)]
    pub seed: u64,
    /// How often a single parent is taken in a self fusion; what widths or numbers of blocks are multiplied by.
    #[serde(default)]
    pub times: Option<usize>,
    /// The parents' weights in the average of the logits.
    #[serde(default)]
    pub weights: Option<Vec<f64>>,
    /// The blocks that parents with fewer of them take in the child.
    #[serde(default)]
    pub depth: Option<DepthAlignment>,
    #[serde(default)]
    pub d_model: Option<usize>,
    #[serde(default)]
    pub num_heads: Option<usize>,
    #[serde(default)]
    pub d_ff: Option<usize>,
    #[serde(default)]
    pub arrangement: Option<Arrangement>,
    #[serde(default)]
    pub new_blocks: Option<NewBlocks>,
    /// What becomes of the parents' optimisers' states.
    #[serde(default)]
    pub optimizer: CarryOptimizer,
    /// The parents' own types if there is none.
    #[serde(default)]
    pub dtype: Option<WeightType>,
}

/// The most copies of a model that a child takes.
const MAX_TIMES: usize = 256;

/// MethodSettings that ask for what no method does.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
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
    /// Whether the options are those of the method, for so many parents.
    pub fn check(&self, parents: usize) -> Result<(), SettingsError> {
        let method = self.method;
        if let Some(option) = self.given().find(|option| !method.takes(option)) {
            return Err(SettingsError::NotAnOption { option, method });
        }
        method.check(self)?;
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

    /// The options that are not at their defaults.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        let options = [
            ("norm", self.norm.is_some()),
            ("cross", self.cross != Cross::Zero),
            ("direction", self.direction != Direction::Both),
            ("times", self.times.is_some()),
            ("weights", self.weights.is_some()),
            ("depth", self.depth.is_some()),
            ("d_model", self.d_model.is_some()),
            ("num_heads", self.num_heads.is_some()),
            ("d_ff", self.d_ff.is_some()),
            ("arrangement", self.arrangement.is_some()),
            ("new_blocks", self.new_blocks.is_some()),
            ("optimizer", self.carries()),
        ];
        options.into_iter().filter(|(_, given)| *given).map(|(option, _)| option)
    }

    /// How often the plan names a parent that is named once.
    pub fn parent_copies(&self) -> usize {
        self.method.copies(self)
    }

    /// Plans the child of parents that [`MethodSettings::check`] has counted, each as often as it is
    /// [taken](MethodSettings::parent_copies).
    pub fn plan(&self, parents: &[FusionParent]) -> Result<Grown> {
        self.method.grow(self, parents)
    }

    /// What a lineage records of the options that the plan does not tell.
    pub fn recorded(&self, plan: &FusionPlan) -> Map<String, Value> {
        let mut options = self.method.recorded(self, plan);
        options.push(("optimizer", self.carries().then(|| json!(self.optimizer))));
        options.push(("dtype", self.dtype.map(|dtype| json!(dtype))));
        options.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// Whether the child starts with an optimiser's state.
    pub(super) fn carries(&self) -> bool {
        self.optimizer != CarryOptimizer::Reset
    }

    /// What a growing method multiplies by.
    pub(super) fn times(&self) -> usize {
        self.times.unwrap_or(2)
    }

    pub(super) fn widths(&self) -> Widths {
        Widths { d_model: self.d_model, num_heads: self.num_heads, d_ff: self.d_ff }
    }

    /// The standard deviation and the seed of what is random.
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
