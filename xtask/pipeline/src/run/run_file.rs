//! `run.json`: lists a run's stages, so that a report needs no recipe.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{VERSION, check_version};
use crate::recipe::{Comparison, Recipe};
use crate::write_json;

const FILE: &str = "run.json";

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RunFile {
    pub version: u32,
    /// The recipe's name.
    pub name: String,
    /// In the order they run.
    pub stages: Vec<StageEntry>,
    #[serde(default)]
    pub comparison: Option<Comparison>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StageEntry {
    pub name: String,
    pub kind: String,
    /// Stages and paths.
    pub inputs: Vec<String>,
}

impl RunFile {
    pub fn new(recipe: &Recipe) -> Self {
        let stages = recipe.stages.iter().map(|stage| StageEntry {
            name: stage.name.clone(),
            kind: stage.kind.name.to_owned(),
            inputs: stage.work.inputs().iter().map(ToString::to_string).collect(),
        });
        RunFile {
            version: VERSION,
            name: recipe.name.clone(),
            stages: stages.collect(),
            comparison: recipe.comparison.clone(),
        }
    }

    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join(FILE);
        let text = fs::read(&path).with_context(|| {
            format!("{} is no run's directory: cannot read {}", run.display(), path.display())
        })?;
        let file: RunFile =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        check_version(file.version, &path)?;
        Ok(file)
    }

    pub fn write(&self, run: &Path) -> Result<()> {
        write_json(&run.join(FILE), self)
    }
}
