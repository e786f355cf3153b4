//! `run.json`: lists a run's stages, so that a report needs no recipe.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{VERSION, check_version};
use crate::recipe::{Comparison, Recipe, RecipeText};
use crate::stage::{Published, SeedSet, Stage};
use crate::write_json;

/// A run's recipe, as far as a report needs it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RunFile {
    /// The version of the file's format; a newer one than this program's is refused.
    pub version: u32,
    /// The recipe's name.
    pub name: String,
    /// In the order they run.
    pub stages: Vec<StageEntry>,
    /// The recipe's `[comparison]`, if it has one.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// The recipe's files, each before those that it includes, then its overrides. Empty in files of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipe: Vec<RecipeText>,
    /// The command of the latest run, word by word, where it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// A stage of a run, whether it has finished or not.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StageEntry {
    /// Unique in the run; also the name of the stage's subdirectory.
    pub name: String,
    /// The name of the stage's [`Kind`](crate::stage::Kind).
    pub kind: String,
    /// Stages and paths.
    pub inputs: Vec<String>,
    /// Which set of seeds it has, if it is run with several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_set: Option<SeedSet>,
    /// What others have measured of its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// Why the latest run leaves it out, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// Why a run leaves a stage out.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// It needs GLUE's files, which were not given.
    WithoutGlue,
    /// Only others were asked for.
    NotSelected,
}

impl StageEntry {
    /// The stage's name in the recipe, which its fellows with other sets of seeds share.
    pub fn recipe_name(&self) -> &str {
        self.seed_set.as_ref().map_or(&self.name, |set| &set.stage)
    }
}

impl RunFile {
    /// The file's name.
    pub const NAME: &str = "run.json";

    /// What to record for a run of this recipe.
    pub fn new(recipe: &Recipe, command: &[String], left_out: &dyn Fn(&Stage) -> Option<LeftOut>) -> Self {
        let stages = recipe.stages.iter().map(|stage| StageEntry {
            name: stage.name.clone(),
            kind: stage.kind.name.to_owned(),
            inputs: stage.work.inputs().iter().map(ToString::to_string).collect(),
            seed_set: stage.seed_set.clone(),
            published: stage.published.clone(),
            left_out: left_out(stage),
        });
        RunFile {
            version: VERSION,
            name: recipe.name.clone(),
            stages: stages.collect(),
            comparison: recipe.comparison.clone(),
            recipe: recipe.texts.clone(),
            command: command.to_vec(),
        }
    }

    /// Reads `run.json` from a run's directory.
    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join(RunFile::NAME);
        let text = fs::read(&path).with_context(|| {
            format!("{} is no run's directory: cannot read {}", run.display(), path.display())
        })?;
        let file: RunFile =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        check_version(file.version, &path)?;
        Ok(file)
    }

    /// Writes `run.json` into a run's directory.
    pub fn write(&self, run: &Path) -> Result<()> {
        write_json(&run.join(RunFile::NAME), self)
    }
}
