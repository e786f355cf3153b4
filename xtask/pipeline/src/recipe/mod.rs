//! Recipes: TOML files that describe a graph of stages. Every error in one is reported with file, line and
//! column before anything runs.

mod check;
mod editors;
mod graph;
#[cfg(test)]
mod hostile;
pub mod reference;
mod resolve;
pub(crate) mod schema;
mod seeds;
mod spelling;
mod variables;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use t5_model::ComputeChoice;

use crate::located::{self, Table, Texts};
use crate::stage::Stage;

pub use schema::json_schema;

/// A recipe that has been checked.
#[derive(Debug)]
pub struct Recipe {
    /// The file's name without its extension.
    pub name: String,
    /// Each after its inputs, otherwise in the file's order.
    pub stages: Vec<Stage>,
    /// `[comparison]`, if the recipe has one.
    pub comparison: Option<Comparison>,
    /// What it says: each file before those that it includes, then the overrides.
    pub texts: Vec<RecipeText>,
}

/// A text that is part of a recipe.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct RecipeText {
    /// The file as it was named, or the override.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// Which trained models the report compares.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The stage that the others are compared with, usually one that trains from scratch.
    pub baseline: String,
    /// The stages to compare with it.
    pub arms: Vec<String>,
}

impl Recipe {
    /// Reads a recipe; `sets` are of the form `key.path=value`.
    pub fn read(path: &Path, sets: &[String]) -> Result<Self> {
        let (mut texts, used) = (Texts::default(), RefCell::default());
        let normalise = |table: &mut Table| {
            variables::used(table, &mut used.borrow_mut());
            spelling::normalise(table);
        };
        let mut table = located::load(path, sets, &normalise, &mut texts)?;
        variables::resolve(&mut table, &used.into_inner(), &texts)?;
        // What stands in a variable is spelt as freely as what stands in its place.
        spelling::normalise(&mut table);
        let name = path.file_stem().context("a recipe is a file")?.to_string_lossy().into_owned();
        let (stages, comparison) = resolve::resolve(table, &texts)?;
        ensure!(!stages.is_empty(), "{} has no stages; `[stages.NAME]` defines one", path.display());
        let texts =
            texts.all().map(|(name, text)| RecipeText { name: name.to_owned(), text: text.to_owned() });
        Ok(Recipe { name, stages, comparison, texts: texts.collect() })
    }

    /// Has its stages compute on what is chosen here, and on what they chose where nothing is.
    pub fn compute_on(&mut self, choice: &ComputeChoice) {
        for stage in &mut self.stages {
            stage.compute = choice.clone().or(&stage.compute);
        }
    }

    /// Where its results go by default.
    pub fn default_output(&self) -> PathBuf {
        Path::new("runs").join(&self.name)
    }
}
