//! How models are fused or grown; what a recipe's `fuse` stage says besides their names.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use fusion_core::grow::DirectSum;
use fusion_core::plan::{Direction, Fill, Normalisation, StandardDeviation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use t5_model::optimizer::CarryOptimizer;
use t5_model::{
    Arrangement, DepthAlignment, FusionParent, Grown, HyperClone, Lemon, Method, Net2Net, NewBlocks, Stack,
    Widths, child_config, fusion_plan, hyperclone, lemon, net2net, self_fusion, stack,
};

use super::WeightType;

/// A method with its options. Those of other methods are refused.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FuseSettings {
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

/// How often a model may be taken.
const MAX_TIMES: usize = 256;

impl FuseSettings {
    /// Whether the options are those of the method, for so many parents.
    pub fn check(&self, parents: usize) -> Result<()> {
        use Method::{Fuse, HyperClone, Lemon, Net2Net, SelfFusion, Stack};
        let method = self.method.name();
        let carries = self.optimizer != CarryOptimizer::Reset;
        let options: [(&str, bool, &[Method]); 12] = [
            ("norm", self.norm.is_some(), &[Fuse, SelfFusion]),
            ("cross", self.cross != Cross::Zero, &[Fuse, SelfFusion, HyperClone, Net2Net]),
            ("direction", self.direction != Direction::Both, &[Fuse, SelfFusion]),
            ("times", self.times.is_some(), &[Fuse, SelfFusion, HyperClone, Stack]),
            ("weights", self.weights.is_some(), &[Fuse]),
            ("depth", self.depth.is_some(), &[Fuse]),
            ("d_model", self.d_model.is_some(), &[Net2Net, Lemon]),
            ("num_heads", self.num_heads.is_some(), &[Net2Net, Lemon]),
            ("d_ff", self.d_ff.is_some(), &[Net2Net, Lemon]),
            ("arrangement", self.arrangement.is_some(), &[Stack]),
            ("new_blocks", self.new_blocks.is_some(), &[Stack]),
            // Lemon's unequal shares are others in each of the sums that a gradient is made of.
            ("optimizer", carries, &[Fuse, SelfFusion, HyperClone, Net2Net, Stack]),
        ];
        for (option, _, methods) in options.into_iter().filter(|(_, given, _)| *given) {
            let names: Vec<&str> = methods.iter().map(|method| method.name()).collect();
            ensure!(
                methods.contains(&self.method),
                "`{option}` is not an option of method {method}, but of {}",
                names.join(", ")
            );
        }
        ensure!(
            !carries || self.method != Stack || self.new_blocks == Some(NewBlocks::Silent),
            "`optimizer`: stacked blocks change every gradient unless they are silent, so a state can only be reset"
        );
        let times = self.times.unwrap_or(1);
        ensure!(
            (1..=MAX_TIMES).contains(&times),
            "`times` is {times}; it is at least 1, 2 for self fusion, and at most {MAX_TIMES}"
        );
        if self.method == Fuse {
            ensure!(
                times == 1 || parents == 1,
                "`times` repeats a single parent, but there are {parents}; name a parent twice instead"
            );
        } else {
            ensure!(
                parents == 1,
                "method {method} grows one model, but there are {parents}; method fuse joins several"
            );
        }
        Ok(())
    }

    /// How often the plan names a parent that is named once.
    pub fn parent_copies(&self) -> usize {
        match self.method {
            Method::Fuse => self.times.unwrap_or(1),
            Method::SelfFusion => self.times(),
            _ => 1,
        }
    }

    fn depth(&self) -> DepthAlignment {
        self.depth.unwrap_or_default()
    }

    fn norm(&self) -> Normalisation {
        self.norm.unwrap_or(Normalisation::Property)
    }

    fn times(&self) -> usize {
        self.times.unwrap_or(2)
    }

    /// Plans the child of parents that [`FuseSettings::check`] has counted.
    pub fn plan(&self, parents: &[FusionParent]) -> Result<Grown> {
        let first = parents.first().context("there are no parents")?;
        let options =
            DirectSum { normalisation: self.norm(), cross: self.fill(), weights: self.weights.clone() };
        let widths = Widths { d_model: self.d_model, num_heads: self.num_heads, d_ff: self.d_ff };
        let (times, seed) = (self.times(), self.seed);
        let noise = self.cross.deviation().map(|std| (std, seed));
        Ok(match self.method {
            Method::Fuse => Grown {
                plan: fusion_plan(parents, &options, self.depth())?,
                child: child_config(parents, options.normalisation)?,
            },
            Method::SelfFusion => self_fusion(first, times, &options)?,
            Method::HyperClone => hyperclone(first, &HyperClone { times, noise })?,
            Method::Net2Net => net2net(first, &Net2Net { widths, seed, noise })?,
            Method::Lemon => lemon(first, &Lemon { widths, seed })?,
            Method::Stack => {
                let (arrangement, new_blocks) =
                    (self.arrangement.unwrap_or_default(), self.new_blocks.unwrap_or_default());
                stack(first, &Stack { times, arrangement, new_blocks })?
            }
        })
    }

    /// What a lineage says of the method's options, beside what it knows from the plan; `shallow` if a parent lacks blocks.
    pub fn recorded(&self, shallow: bool) -> Result<Map<String, Value>> {
        let mut options = Map::new();
        let mut record = |key: &str, value: Option<Value>| {
            options.extend(value.map(|value| (key.to_owned(), value)));
        };
        let aligns = shallow && self.method == Method::Fuse;
        record("depth", aligns.then(|| serde_json::to_value(self.depth())).transpose()?);
        record("weights", self.weights.clone().map(Value::from));
        let multiplies = matches!(self.method, Method::HyperClone | Method::Stack);
        record("times", multiplies.then(|| self.times().into()));
        for (key, size) in [("d_model", self.d_model), ("num_heads", self.num_heads), ("d_ff", self.d_ff)] {
            record(key, size.map(Value::from));
        }
        let chooses = matches!(self.method, Method::Net2Net | Method::Lemon);
        record("seed", chooses.then(|| self.seed.into()));
        record("arrangement", self.arrangement.map(serde_json::to_value).transpose()?);
        record("new_blocks", self.new_blocks.map(serde_json::to_value).transpose()?);
        let carries = self.optimizer != CarryOptimizer::Reset;
        record("optimizer", carries.then(|| serde_json::to_value(self.optimizer)).transpose()?);
        record("dtype", self.dtype.map(serde_json::to_value).transpose()?);
        Ok(options)
    }

    fn fill(&self) -> Fill {
        let (seed, direction) = (self.seed, self.direction);
        self.cross.deviation().map_or(Fill::Zero, |std| Fill::Normal { std, seed, direction })
    }
}

/// The random part of a child: `zero`, `normal:STD`, `relative:SHARE`, `db:BELOW`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Cross {
    #[default]
    Zero,
    /// A standard deviation.
    Normal(f64),
    /// A standard deviation as a share of the weights' root mean square.
    Relative(f64),
    /// The same in decibels below it (HyperCloning's signal-to-noise ratio).
    Decibels(f64),
}

impl FromStr for Cross {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |number: &str| {
            let number = number.parse().ok().filter(|number: &f64| number.is_finite());
            number.ok_or_else(|| format!("what follows the colon in {text:?} must be a number"))
        };
        let positive = |text: &str| match number(text)? {
            number if number > 0.0 => Ok(number),
            number => Err(format!("the standard deviation must be above 0, but is {number}")),
        };
        match text.split_once(':') {
            None if text == "zero" => Ok(Cross::Zero),
            Some(("normal", std)) => Ok(Cross::Normal(positive(std)?)),
            Some(("relative", share)) => Ok(Cross::Relative(positive(share)?)),
            // Up to noise ten thousand times the weights, and down to where f32 ends.
            Some(("db", below)) => match number(below)? {
                below if (-80.0..=700.0).contains(&below) => Ok(Cross::Decibels(below)),
                below => Err(format!("{below} dB is not between -80 and 700")),
            },
            _ => Err(format!("{text:?} is none of zero, normal:STD, relative:SHARE, db:BELOW")),
        }
    }
}

impl TryFrom<String> for Cross {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Cross {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cross::Zero => f.write_str("zero"),
            Cross::Normal(std) => write!(f, "normal:{std}"),
            Cross::Relative(share) => write!(f, "relative:{share}"),
            Cross::Decibels(below) => write!(f, "db:{below}"),
        }
    }
}

impl From<Cross> for String {
    fn from(cross: Cross) -> Self {
        cross.to_string()
    }
}

impl Cross {
    fn deviation(self) -> Option<StandardDeviation> {
        match self {
            Cross::Zero => None,
            Cross::Normal(std) => Some(StandardDeviation::Absolute(std)),
            Cross::Relative(share) => Some(StandardDeviation::Relative(share)),
            Cross::Decibels(below) => Some(StandardDeviation::Relative(10f64.powf(-below / 20.0))),
        }
    }
}
