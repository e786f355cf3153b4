//! The methods that make a larger model out of smaller ones. Each has a file with everything specific to it:
//! its name and paper, its options, what its child promises, and its plan. To add a method, write such a file
//! and add it to the list in `registry.rs`.

mod cross;
mod depth;
mod fuse;
mod hyperclone;
mod lemon;
mod net2net;
mod promise;
mod refusal;
mod registry;
mod self_fusion;
mod settings;
mod stack;
mod widths;

use std::path::PathBuf;

use fusion_core::grow::Part;
use fusion_core::plan::FusionPlan;
use fusion_core::table::ParamTable;
use serde_json::Value;

pub use cross::Cross;
pub use depth::DepthAlignment;
pub use fuse::Fuse;
pub use hyperclone::HyperClone;
pub use lemon::Lemon;
pub use net2net::Net2Net;
pub use promise::Promise;
pub use refusal::Refusal;
pub use registry::Method;
pub use self_fusion::SelfFusion;
pub use settings::{MethodSettings, SettingsError};
pub use stack::{Arrangement, NewBlocks, Stack};
pub use widths::Widths;

use crate::{Error, Result, T5Config};

/// A model to fuse or to grow.
#[derive(Clone, Debug)]
pub struct FusionParent {
    /// A name for messages and plans.
    pub label: String,
    /// Its configuration.
    pub config: T5Config,
    /// The hash of its weights, where known.
    pub blake3: Option<String>,
    /// Where it comes from, for messages.
    pub path: PathBuf,
}

/// The result of a method: the plan, and the child's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Grown {
    /// How each parameter is made.
    pub plan: FusionPlan,
    /// The configuration of the child.
    pub child: T5Config,
}

/// Where a method is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paper {
    /// The authors' name for the method.
    pub name: &'static str,
    /// Where to read it.
    pub url: &'static str,
}

/// Keys of [`MethodSettings`] and, where needed, the values to record.
pub type Recorded = Vec<(&'static str, Option<Value>)>;

/// A method. A type that implements this holds the method's options.
pub trait GrowthMethod: Sized {
    /// Its name in commands, recipes, plans and lineages.
    const NAME: &'static str;
    /// Other names that commands accept.
    const ALIASES: &'static [&'static str] = &[];
    /// Where it is described.
    const PAPER: Paper;
    /// What it does, as a line of help.
    const SUMMARY: &'static str;
    /// Whether it joins several parents; otherwise it grows one.
    const JOINS: bool = false;
    /// The keys of [`MethodSettings`] that it takes.
    const OPTIONS: &'static [&'static str];

    /// Takes its options from settings that hold those of all methods.
    fn from_settings(settings: &MethodSettings) -> Self;

    /// Refuses unsupported combinations of options.
    fn check(_: &MethodSettings) -> Result<(), SettingsError> {
        Ok(())
    }

    /// How many times its plan uses a parent that is named once.
    fn copies(_: &MethodSettings) -> usize {
        1
    }

    /// The options that a lineage records because the plan does not contain them.
    fn recorded(settings: &MethodSettings, plan: &FusionPlan) -> Recorded;

    /// What a plan's child predicts before it is trained.
    fn promise(plan: &FusionPlan) -> Promise;

    /// Plans the child of these parents, each repeated [as often as it is used](GrowthMethod::copies);
    /// methods that grow one model use only the first.
    fn plan(&self, parents: &[FusionParent]) -> Result<Grown>;

    /// The same, with the method's name in the plan.
    fn grow(&self, parents: &[FusionParent]) -> Result<Grown> {
        let mut grown = self.plan(parents)?;
        grown.plan.method = Self::NAME.into();
        Ok(grown)
    }
}

impl Grown {
    /// The child, with the plan's normalisation groups.
    fn new(plan: FusionPlan, mut child: T5Config) -> Result<Self> {
        let grouped = plan.embed_groups.len() > 1;
        child.rms_norm_groups = if grouped { plan.embed_groups.clone() } else { Vec::new() };
        child.validate()?;
        Ok(Grown { plan, child })
    }
}

impl FusionParent {
    /// The parent in the algebra's terms.
    fn part<'a>(&'a self, table: &'a ParamTable) -> Part<'a> {
        Part {
            label: &self.label,
            blake3: self.blake3.as_deref(),
            table,
            embed_groups: &self.config.rms_norm_groups,
        }
    }
}

/// The model that a method grows.
fn first(parents: &[FusionParent]) -> Result<&FusionParent> {
    parents.first().ok_or_else(|| Error::Fusion("there are no parents".into()))
}
