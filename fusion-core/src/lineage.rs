//! `lineage.json`: what a model was made from, and the computation that took.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::plan::{Fill, FusionPlan, Normalisation};
use crate::{Error, Result, json};

const VERSION: u32 = 1;
const FILE: &str = "lineage.json";

/// The history of a model: at most one fusion, then training. Unknown keys are kept, at every level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The version of the format.
    pub version: u32,
    /// The hash of the weights this lineage was written for, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// How the model began; `None` if it began with random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// The training since then, in order.
    #[serde(default)]
    pub training: Vec<Training>,
    /// Other keys of the file.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A fusion or a growth: its plan, without the parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fusion {
    /// The name of the method.
    pub method: String,
    /// How the child normalises its model dimension.
    pub normalisation: Normalisation,
    /// The groups that are normalised separately.
    pub embed_groups: Vec<usize>,
    /// What was random: how the cross-connections were filled, or the noise between copies.
    pub cross: Fill,
    /// The parents, in the plan's order.
    pub parents: Vec<Parent>,
    /// Options of the method that the plan does not tell, and other keys of the file.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A parent, with its own history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// A name for messages.
    pub label: String,
    /// The hash of its weights, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// Its history. Left out if it is unknown, or if an earlier parent has the same hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Box<Lineage>>,
    /// Other keys of the file.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A stretch of training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Updates of the weights.
    pub steps: u64,
    /// Input and target tokens together.
    pub tokens: u64,
    /// Floating-point operations, forward and backward.
    pub flops: f64,
    /// Other keys of the file.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a checkpoint knows of the history of its weights, [`Checkpoint::history`](crate::checkpoint::Checkpoint::history).
#[derive(Clone, Debug, PartialEq)]
pub enum History {
    /// Nothing: there is no `lineage.json`.
    Unknown,
    /// Nothing: `lineage.json` was written for other weights.
    OfOtherWeights,
    /// All that `lineage.json` says.
    Known(Box<Lineage>),
}

impl History {
    /// The lineage, if it is that of the weights.
    pub fn known(self) -> Option<Lineage> {
        match self {
            History::Known(lineage) => Some(*lineage),
            History::Unknown | History::OfOtherWeights => None,
        }
    }
}

/// A line of a [lineage's tree](Lineage::tree).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TreeLine<'a> {
    /// The model began with random weights.
    Random,
    /// The model began as a fusion of the parents in the lines that follow.
    Fused(&'a Fusion),
    /// A parent, followed by its own history, one level deeper.
    Parent(&'a Parent),
    /// The parent's weights are those of an earlier parent.
    AsAbove,
    /// Nothing is known of the parent's history.
    Unknown,
    /// The model was trained.
    Trained(&'a Training),
}

impl Default for Lineage {
    /// The lineage of random weights.
    fn default() -> Self {
        Lineage { version: VERSION, blake3: None, fusion: None, training: Vec::new(), other: Map::new() }
    }
}

impl Lineage {
    /// The lineage of a plan's child before any training. `parents` are the lineages of the parents, in order; those that
    /// are missing are unknown.
    pub fn of_fusion(plan: &FusionPlan, parents: impl IntoIterator<Item = Option<Lineage>>) -> Self {
        let mut seen = HashSet::new();
        let mut lineages = parents.into_iter();
        let parents = plan.parents.iter().map(|parent| {
            let lineage = lineages.next().flatten().map(Box::new);
            let is_new = parent.blake3.as_ref().is_none_or(|blake3| seen.insert(blake3.clone()));
            Parent {
                label: parent.label.clone(),
                blake3: parent.blake3.clone(),
                lineage: lineage.filter(|_| is_new),
                other: Map::new(),
            }
        });
        let fusion = Fusion {
            method: plan.method.clone(),
            normalisation: plan.normalisation,
            embed_groups: plan.embed_groups.clone(),
            cross: plan.cross(),
            parents: parents.collect(),
            other: Map::new(),
        };
        Lineage { fusion: Some(fusion), ..Lineage::default() }
    }

    /// The model's history and, before its training, that of its parents: each line with its depth, which is 0 for the
    /// model itself, 1 for the histories of its parents, and so on.
    pub fn tree(&self) -> Vec<(usize, TreeLine<'_>)> {
        let mut lines = Vec::new();
        self.add_lines(0, &mut lines);
        lines
    }

    fn add_lines<'a>(&'a self, depth: usize, lines: &mut Vec<(usize, TreeLine<'a>)>) {
        lines.push((depth, self.fusion.as_ref().map_or(TreeLine::Random, TreeLine::Fused)));
        let mut seen = HashSet::new();
        for parent in self.fusion.iter().flat_map(|fusion| &fusion.parents) {
            lines.push((depth, TreeLine::Parent(parent)));
            let is_new = parent.blake3.as_ref().is_none_or(|blake3| seen.insert(blake3));
            match &parent.lineage {
                Some(lineage) => lineage.add_lines(depth + 1, lines),
                None => lines.push((depth + 1, if is_new { TreeLine::Unknown } else { TreeLine::AsAbove })),
            }
        }
        lines.extend(self.training.iter().map(|training| (depth, TreeLine::Trained(training))));
    }

    /// The computation behind this model, in floating-point operations: its own training and that of all its ancestors. An
    /// ancestor that occurs more than once, as in a self fusion, counts once if its hash is known.
    pub fn total_flops(&self) -> f64 {
        let mut total = 0.0;
        self.each_flops(&mut |_, flops| total += flops);
        total
    }

    /// Calls `each` for the model and for each of its ancestors, once, with the hash of its weights, where known, and the
    /// computation of its own training.
    pub fn each_flops<'a>(&'a self, each: &mut dyn FnMut(Option<&'a str>, f64)) {
        self.visit(self.blake3.as_deref(), &mut HashSet::new(), each);
    }

    fn visit<'a>(
        &'a self,
        blake3: Option<&'a str>,
        seen: &mut HashSet<&'a str>,
        each: &mut dyn FnMut(Option<&'a str>, f64),
    ) {
        // The sum of nothing would be -0.
        each(blake3, self.training.iter().fold(0.0, |sum, training| sum + training.flops));
        for parent in self.fusion.iter().flat_map(|fusion| &fusion.parents) {
            let is_new = parent.blake3.as_deref().is_none_or(|blake3| seen.insert(blake3));
            if let Some(lineage) = parent.lineage.as_ref().filter(|_| is_new) {
                lineage.visit(parent.blake3.as_deref(), seen, each);
            }
        }
    }

    /// Reads `lineage.json` from a directory, if there is one.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let object: Map<String, Value> = json::read(&path)?;
        let version = object.get("version").and_then(Value::as_u64);
        if let Some(version) = version.filter(|&version| version > u64::from(VERSION)) {
            return Err(Error::LineageVersion { path, version, supported: VERSION });
        }
        let lineage = serde_json::from_value(Value::Object(object));
        lineage.map(Some).map_err(Error::json(path))
    }

    /// Writes `lineage.json` into a directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        json::write(&directory.join(FILE), self)
    }
}
