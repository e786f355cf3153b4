//! `lineage.json`: what a model was made from, and what that took.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::atomic::write_file_atomically;
use crate::checkpoint::read_object;
use crate::plan::{Fill, FusionPlan, Normalisation};
use crate::{Error, Result};

const VERSION: u32 = 1;
const FILE: &str = "lineage.json";

/// The history of a model: at most one fusion, then training. Unknown keys are kept, at every level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
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
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The plan of a fusion, without its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fusion {
    pub method: String,
    pub normalisation: Normalisation,
    pub embed_groups: Vec<usize>,
    /// The filling of the cross-connections, with its seed.
    pub cross: Fill,
    pub parents: Vec<Parent>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A parent, with its own history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    pub label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// Left out if unknown, or if an earlier parent has the same hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Box<Lineage>>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A stretch of training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    pub steps: u64,
    /// Input and target tokens.
    pub tokens: u64,
    /// Floating-point operations, forward and backward.
    pub flops: f64,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for Lineage {
    /// The lineage of random weights.
    fn default() -> Self {
        Lineage { version: VERSION, blake3: None, fusion: None, training: Vec::new(), other: Map::new() }
    }
}

impl Lineage {
    /// The lineage of a plan's child, before any training. `parents` are the parents' own, in order; missing ones
    /// are unknown.
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

    /// The computation behind this model, in floating-point operations: its own training and that of all its
    /// ancestors. An ancestor that occurs more than once, as in self fusion, counts once if its hash is known.
    pub fn total_flops(&self) -> f64 {
        self.flops_but_for(&mut HashSet::new())
    }

    fn flops_but_for<'a>(&'a self, counted: &mut HashSet<&'a str>) -> f64 {
        // The sum of nothing would be -0.
        let own = self.training.iter().fold(0.0, |sum, training| sum + training.flops);
        let parents = self.fusion.iter().flat_map(|fusion| &fusion.parents);
        parents.fold(own, |total, parent| {
            let is_new = parent.blake3.as_deref().is_none_or(|blake3| counted.insert(blake3));
            match &parent.lineage {
                Some(lineage) if is_new => total + lineage.flops_but_for(counted),
                _ => total,
            }
        })
    }

    /// Reads `lineage.json` in a directory, if there is one.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let object = read_object(&path)?;
        let version = object.get("version").and_then(Value::as_u64);
        if let Some(version) = version.filter(|&version| version > u64::from(VERSION)) {
            return Err(Error::LineageVersion { path, version, supported: VERSION });
        }
        let lineage = serde_json::from_value(Value::Object(object));
        lineage.map(Some).map_err(|error| Error::Json { path, message: error.to_string() })
    }

    /// Writes `lineage.json` into a directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Json { path: path.clone(), message: error.to_string() })?;
        write_file_atomically(&path, format!("{text}\n").as_bytes())
    }
}
