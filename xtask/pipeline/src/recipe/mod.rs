//! Recipes: TOML files that describe a graph of stages. Every error in one is reported with file, line and
//! column before anything runs.

mod graph;
#[cfg(test)]
mod hostile;
mod schema;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::located::{self, Texts};
use crate::stage::Stage;

/// A recipe that has been checked.
#[derive(Debug)]
pub struct Recipe {
    /// The file's name without its extension.
    pub name: String,
    /// Each after its inputs, otherwise in the file's order.
    pub stages: Vec<Stage>,
    /// `[comparison]`, if the recipe has one.
    pub comparison: Option<Comparison>,
}

/// Which trained models the report compares.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The stage that trains from scratch.
    pub baseline: String,
    /// The other stages.
    pub arms: Vec<String>,
}

impl Recipe {
    /// Reads a recipe; `sets` are of the form `key.path=value`.
    pub fn read(path: &Path, sets: &[String]) -> Result<Self> {
        let mut texts = Texts::default();
        let table = located::load(path, sets, &mut texts)?;
        let name = path.file_stem().context("a recipe is a file")?.to_string_lossy().into_owned();
        let (stages, comparison) = schema::resolve(table, &texts)?;
        Ok(Recipe { name, stages, comparison })
    }

    /// Where its results go by default.
    pub fn default_output(&self) -> PathBuf {
        Path::new("runs").join(&self.name)
    }
}
