//! Stages, the building blocks of a recipe, each with its work. Every kind of stage is a file or folder here,
//! which holds everything specific to it: its keys in a recipe, its inputs, its forecast, its work, and what
//! a report shows of it. A new kind takes a new file and a line in [`KINDS`]. Commands that perform a single
//! step build the same work.

mod budget;
mod dimensions;
pub mod evaluate;
pub mod examples;
mod forecast;
pub mod fuse;
pub mod glue;
mod input;
mod keys;
pub mod pretrain;
mod published;
mod seed_set;
mod shown;
pub mod text;
pub mod texts;
pub mod tokenizer;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use glue_eval::Task;
use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value};
use t5_model::ComputeChoice;

use crate::{Compute, Note, Watch, write_json};

pub use budget::{Budget, Spent};
pub use dimensions::Dimensions;
pub use forecast::{Forecast, Known, Read, TextFile, TokenizerId, Training, Vocabulary};
pub use input::{Gives, Input};
pub use keys::{DataTable, Keys, Set, Shared};
pub use published::{Figure, Published};
pub use seed_set::SeedSet;
pub use shown::{Arm, Finished, Overview, QUALITY, Row, Shown, quality_cells};

/// The kinds of stages.
pub const KINDS: &[&Kind] = &[&tokenizer::KIND, &pretrain::KIND, &fuse::KIND, &glue::KIND, &evaluate::KIND];

/// What all stages of a kind have in common.
#[derive(Debug)]
pub struct Kind {
    /// As written in recipes and in `stage.json`.
    pub name: &'static str,
    /// What such a stage does, in a sentence for users.
    pub about: &'static str,
    /// What other stages can take from such a stage.
    pub gives: Option<Gives>,
    /// Where that, or the result, is in the stage's directory.
    pub output: &'static str,
    /// The recipe's table of settings for all stages of this kind, which each stage's own keys override.
    pub table: Option<&'static str>,
    /// The schemas of the tables into which its keys are read.
    pub keys: fn(&mut SchemaGenerator) -> Vec<Schema>,
    /// Whether its stages also have the keys of [`ComputeChoice`].
    pub computes: bool,
    /// Whether several processes compute such a stage together; otherwise one does, and the others wait.
    pub together: bool,
    /// Reads a stage's keys.
    pub read: fn(&mut Keys<'_>) -> Result<Arc<dyn Work>>,
    /// What a report shows of a finished stage.
    pub show: fn(&Finished<'_>) -> Result<Shown>,
    /// A model's learning curve in a finished stage, for kinds that `[comparison]` accepts.
    pub arm: Option<fn(&Finished<'_>) -> Result<Arm>>,
}

impl Kind {
    /// Finds a kind by name.
    pub fn named(name: &str) -> Option<&'static Kind> {
        KINDS.iter().copied().find(|kind| kind.name == name)
    }
}

/// What a stage does, with everything that determines its result.
pub trait Work: Settings + fmt::Debug + Send + Sync {
    /// What its settings do to its result, other than deciding it.
    fn effects(&self) -> Effects {
        Effects::default()
    }

    /// The models and tokenizers it reads; stages among them run first.
    fn inputs(&self) -> Vec<&Input>;

    /// What its training may cost, if its number of steps is to follow from that.
    fn budget(&self) -> Option<&Budget> {
        None
    }

    /// The same work with a number of steps, if it has a [budget](Work::budget).
    fn with_steps(&self, steps: u64) -> Option<Arc<dyn Work>> {
        let _ = steps;
        None
    }

    /// The same work, which also keeps the models of these steps of its training.
    fn keep_steps(&self, steps: &BTreeSet<u64>) -> Option<Arc<dyn Work>> {
        let _ = steps;
        None
    }

    /// The seed that decides its result; `None` if none does.
    fn seed(&self) -> Option<u64> {
        None
    }

    /// The same work with another seed, if one decides its result.
    fn with_seed(&self, seed: u64) -> Option<Arc<dyn Work>> {
        let _ = seed;
        None
    }

    /// The texts it reads.
    fn reads(&self) -> Vec<text::Reading<'_>> {
        Vec::new()
    }

    /// Whether it computes with a backend.
    fn computes(&self) -> bool {
        true
    }

    /// The tasks whose files it reads, if it reads GLUE's.
    fn glue_tasks(&self) -> Option<&[Task]> {
        None
    }

    /// The subdirectory with what an unfinished stage can resume from.
    fn checkpoints(&self) -> String {
        "checkpoints".to_owned()
    }

    /// Names of what it writes into its directory besides its output.
    fn beside(&self) -> &'static [&'static str] {
        &[]
    }

    /// What it will produce, as far as that is known before it runs, or why it will fail.
    fn forecast(&self, known: &Known<'_>) -> Result<Forecast> {
        let _ = known;
        Ok(Forecast::default())
    }

    /// Does the work, or resumes it. Returns the result for `stage.json`.
    fn run(&self, context: &Context<'_>) -> Result<Value>;
}

/// Settings that do not decide a result. All others do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effects {
    /// Settings that make no difference.
    pub neutral: &'static [&'static str],
    /// Settings that change only what is measured on the way.
    pub measuring: &'static [&'static str],
    /// Settings that keep more of the result. If one is switched off, nothing is missing.
    pub keeping: &'static [&'static str],
    /// Settings that say how much there is of the result. What there is stays, and the stage goes on.
    pub extending: &'static [&'static str],
}

/// The settings of whatever can be serialised.
pub trait Settings {
    /// All settings, as an object.
    fn settings(&self) -> serde_json::Result<Value>;
}

impl<T: Serialize> Settings for T {
    fn settings(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}

/// A step of a recipe.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Unique in the recipe; also the name of the stage's directory.
    pub name: String,
    /// What it shares with other stages of its kind.
    pub kind: &'static Kind,
    /// What it does when it runs, including its settings.
    pub work: Arc<dyn Work>,
    /// What it computes on, as far as the recipe says.
    pub compute: ComputeChoice,
    /// Which set of seeds it has, if the recipe has it run with several.
    pub seed_set: Option<SeedSet>,
    /// What others have measured of its model.
    pub published: Option<Published>,
}

impl Stage {
    /// The work's settings, preceded by its kind.
    pub fn settings(&self) -> serde_json::Result<Map<String, Value>> {
        let mut settings = Map::from_iter([("kind".to_owned(), self.kind.name.into())]);
        if let Value::Object(own) = self.work.settings()? {
            settings.extend(own);
        }
        Ok(settings)
    }

    /// Where the result is, given the stage's own directory.
    pub fn output_in(&self, directory: &Path) -> PathBuf {
        directory.join(self.kind.output)
    }
}

/// What a stage works with.
pub struct Context<'a> {
    /// The stage's name.
    pub name: &'a str,
    /// The stage's directory.
    pub directory: &'a Path,
    /// Where the result goes.
    pub output: &'a Path,
    /// GLUE's files, for a stage that reads them.
    pub glue: Option<&'a Path>,
    /// What to run models on.
    pub compute: &'a Compute,
    /// Follows the stage's progress, and may stop it.
    pub watch: &'a dyn Watch,
    /// Locates inputs, whose stages have finished.
    pub locate: &'a (dyn Fn(&Input) -> Result<PathBuf> + Sync),
}

impl Context<'_> {
    /// Where an input is, fetching it if necessary.
    pub fn locate(&self, input: &Input) -> Result<PathBuf> {
        (self.locate)(input)
    }

    /// Writes a result, and also returns it for `stage.json`.
    fn write_json(&self, result: &impl Serialize) -> Result<Value> {
        let result = serde_json::to_value(result)?;
        if self.compute.writes() {
            write_json(self.output, &result)?;
        }
        Ok(result)
    }

    fn note(&self, note: &Note<'_>) {
        self.watch.note(self.name, note);
    }
}
