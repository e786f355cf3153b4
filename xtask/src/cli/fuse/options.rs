//! What is fused and how, as options that `fuse` and `check` share.

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use fusion_core::checkpoint::WeightType;
use fusion_core::plan::{Direction, Normalisation};
use pipeline::source::ModelPlace;
use pipeline::stage::fuse::NamedModel;
use t5_model::method::{Arrangement, Cross, DepthAlignment, Method, MethodSettings, NewBlocks};
use t5_model::optimizer::CarryOptimizer;

use crate::cli::weight_type::weight_type;
use crate::terminal::Terminal;

/// The values of an option, for a type of another crate.
macro_rules! named_values {
    ($name:ident for $type:ident { $($(#[$attribute:meta])* $value:ident => $variant:ident,)+ }) => {
        #[derive(Clone, Copy, Debug, clap::ValueEnum)]
        enum $name {
            $($(#[$attribute])* $value,)+
        }

        impl From<$name> for $type {
            fn from(name: $name) -> $type {
                match name {
                    $($name::$value => $type::$variant,)+
                }
            }
        }
    };
}

#[derive(Args, Debug)]
pub struct Options {
    /// How the child is made
    #[arg(long, value_name = "NAME", value_parser = method(), default_value = "fuse")]
    method: Method,
    /// Normalise each parent's slice by itself (property: exact) or all as one vector (rule: stock T5) [default: property]
    #[arg(long, value_name = "NORM", value_enum)]
    norm: Option<Norm>,
    /// What is random: zero, normal:STD (absolute), relative:SHARE (of the weights' root mean square) or db:BELOW (decibels
    /// below it). Fusions fill the cross-connections with it, hyperclone and net2net tell copies apart
    #[arg(long, value_name = "CROSS", default_value = "zero", allow_hyphen_values = true)]
    cross: Cross,
    /// The parents that cross-connections join
    #[arg(long, value_name = "DIRECTION", value_enum, default_value = "both")]
    direction: DirectionName,
    /// Seed of everything that is random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Take the only parent so often (fuse, self); multiply widths (hyperclone) or numbers of blocks (stack) by it
    /// [default: 2, but 1 for fuse]
    #[arg(long, value_name = "N")]
    times: Option<usize>,
    /// The parents' weights in the average, adding up to 1 [default: all equal]
    #[arg(long, value_name = "W,…", value_delimiter = ',')]
    weights: Option<Vec<f64>>,
    /// Which of the child's blocks a parent with fewer takes; it passes its features through the others [default: bottom]
    #[arg(long, value_name = "WHERE", value_enum)]
    depth: Option<Depth>,
    /// The child's d_model, a multiple of the parent's (net2net, lemon)
    #[arg(long, value_name = "N")]
    d_model: Option<usize>,
    /// The child's number of heads (net2net, lemon)
    #[arg(long, value_name = "N")]
    num_heads: Option<usize>,
    /// The child's d_ff (net2net, lemon)
    #[arg(long, value_name = "N")]
    d_ff: Option<usize>,
    /// Where copies of blocks go (stack) [default: repeat]
    #[arg(long, value_name = "WHERE", value_enum)]
    arrangement: Option<ArrangementName>,
    /// What copies of blocks do at first (stack) [default: active]
    #[arg(long, value_name = "WHAT", value_enum)]
    new_blocks: Option<NewBlocksName>,
    /// What becomes of the optimisers' states beside the parents' weights
    #[arg(long, value_name = "WHAT", value_enum, default_value = "reset")]
    optimizer: OptimizerName,
    /// Type of the fused weights [default: the parents']
    #[arg(long, value_parser = weight_type())]
    dtype: Option<WeightType>,
}

fn method() -> impl TypedValueParser<Value = Method> {
    let named = |name: String| {
        let mut all = Method::all();
        all.find(|method| method.name() == name || method.aliases().contains(&name.as_str()))
    };
    let values = Method::all().map(|method| {
        PossibleValue::new(method.name()).help(method.summary()).aliases(method.aliases().iter().copied())
    });
    PossibleValuesParser::new(values).try_map(move |name| named(name).ok_or("no method"))
}

named_values! {
    Norm for Normalisation {
        Property => Property,
        Rule => Rule,
    }
}

named_values! {
    DirectionName for Direction {
        /// Every parent's outputs see every other's inputs
        Both => Both,
        /// From earlier parents into later ones only
        Forward => Forward,
        /// From later parents into earlier ones only
        Backward => Backward,
    }
}

named_values! {
    Depth for DepthAlignment {
        /// The first ones
        Bottom => Bottom,
        /// The last ones
        Top => Top,
        /// The first, the last, and evenly spaced ones in between
        Spread => Spread,
    }
}

named_values! {
    ArrangementName for Arrangement {
        /// All blocks again after the last
        Repeat => Repeat,
        /// Each block again after itself
        Interleave => Interleave,
    }
}

named_values! {
    NewBlocksName for NewBlocks {
        /// What their originals do
        Active => Active,
        /// Nothing, until they learn: their output projections are zero
        Silent => Silent,
    }
}

named_values! {
    OptimizerName for CarryOptimizer {
        /// Nothing: the child starts without one
        Reset => Reset,
        /// It becomes the child's, so that its next updates are as large as the parents' would have been
        Carry => Carry,
        /// The same, but as if no gradient had been seen in what connects the parents
        Diagonal => Diagonal,
    }
}

impl Options {
    pub fn settings(&self) -> MethodSettings {
        MethodSettings {
            method: self.method,
            norm: self.norm.map(Into::into),
            cross: self.cross,
            direction: self.direction.into(),
            seed: self.seed,
            times: self.times,
            weights: self.weights.clone(),
            depth: self.depth.map(Into::into),
            d_model: self.d_model,
            num_heads: self.num_heads,
            d_ff: self.d_ff,
            arrangement: self.arrangement.map(Into::into),
            new_blocks: self.new_blocks.map(Into::into),
            optimizer: self.optimizer.into(),
            dtype: self.dtype,
        }
    }
}

/// Fetches the parents, and names them by their directories, or by their paths where two directories have the same name.
pub fn named(parents: &[ModelPlace]) -> Result<Vec<NamedModel>> {
    let unique =
        |place: &ModelPlace| !parents.iter().any(|other| other != place && other.name() == place.name());
    let label = |place: &ModelPlace| if unique(place) { place.name() } else { place.to_string() };
    let model =
        |place: &ModelPlace| Ok(NamedModel { label: label(place), directory: place.directory(&Terminal)? });
    parents.iter().map(model).collect()
}
