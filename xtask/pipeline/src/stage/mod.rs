//! What a recipe is made of: stages, each with its work. Every kind of stage is a file or folder here, which holds all that
//! is particular to it: the keys that it has in a recipe, its inputs, what it will make, its work, and what a report shows
//! of it. A new kind is a new file and a line in [`KINDS`]. The commands that take one step build the same work.

mod dimensions;
pub mod evaluate;
mod forecast;
pub mod fuse;
pub mod glue;
mod input;
mod keys;
pub mod pretrain;
mod shown;
pub mod text;
pub mod tokenizer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use glue_eval::Task;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Compute, Note, Watch, write_json};

pub use dimensions::Dimensions;
pub use forecast::{Forecast, Known, Training, Vocabulary};
pub use input::{Gives, Input};
pub use keys::{Keys, Shared};
pub use shown::{Arm, Finished, Overview, Row, Shown};

/// The kinds of stages.
pub const KINDS: &[&Kind] = &[&tokenizer::KIND, &pretrain::KIND, &fuse::KIND, &glue::KIND, &evaluate::KIND];

/// What all stages of a kind have in common.
#[derive(Debug)]
pub struct Kind {
    /// In recipes and in `stage.json`.
    pub name: &'static str,
    /// What others can take from such a stage.
    pub gives: Option<Gives>,
    /// Where that, or the result, lies in the stage's directory.
    pub output: &'static str,
    /// The table of a recipe with what all stages of this kind have in common, on top of which each puts its own keys.
    pub table: Option<&'static str>,
    /// Reads a stage's keys.
    pub read: fn(&mut Keys<'_>) -> Result<Arc<dyn Work>>,
    /// What a report shows of a finished stage.
    pub show: fn(&Finished<'_>) -> Result<Shown>,
    /// How a model became better in a finished stage, where `[comparison]` can take such stages.
    pub arm: Option<fn(&Finished<'_>) -> Result<Arm>>,
}

impl Kind {
    /// The kind of that name.
    pub fn named(name: &str) -> Option<&'static Kind> {
        KINDS.iter().copied().find(|kind| kind.name == name)
    }
}

/// What a stage does, with everything that decides its result.
pub trait Work: Settings + fmt::Debug + Send + Sync {
    /// The settings that change nothing about the result.
    fn neutral(&self) -> &'static [&'static str] {
        &[]
    }

    fn inputs(&self) -> Vec<&Input>;

    /// The tasks whose files it reads, if it reads GLUE's files.
    fn glue_tasks(&self) -> Option<&[Task]> {
        None
    }

    /// The folder in its directory with what an unfinished stage can go on from.
    fn checkpoints(&self) -> String {
        "checkpoints".to_owned()
    }

    /// What it will make, as far as that is known before it runs, or why it will fail.
    fn forecast(&self, known: &Known<'_>) -> Result<Forecast> {
        let _ = known;
        Ok(Forecast::default())
    }

    /// Does the work, or goes on with it. Returns the result for `stage.json`.
    fn run(&self, context: &Context<'_>) -> Result<Value>;
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
    pub name: String,
    pub kind: &'static Kind,
    pub work: Arc<dyn Work>,
}

impl Stage {
    /// The work's settings, behind its kind.
    pub fn settings(&self) -> serde_json::Result<Map<String, Value>> {
        let mut settings = Map::from_iter([("kind".to_owned(), self.kind.name.into())]);
        if let Value::Object(own) = self.work.settings()? {
            settings.extend(own);
        }
        Ok(settings)
    }

    /// Where the result lies in a directory of the stage's own.
    pub fn output_in(&self, directory: &Path) -> PathBuf {
        directory.join(self.kind.output)
    }
}

/// What a stage works with.
pub struct Context<'a> {
    /// The stage's.
    pub name: &'a str,
    /// The stage's.
    pub directory: &'a Path,
    /// Where the result goes.
    pub output: &'a Path,
    /// GLUE's files, for a stage that reads some.
    pub glue: Option<&'a Path>,
    pub compute: &'a Compute,
    pub watch: &'a dyn Watch,
    /// Finds inputs, whose stages are finished.
    pub locate: &'a dyn Fn(&Input) -> Result<PathBuf>,
}

impl Context<'_> {
    /// Where an input lies, once it has been fetched.
    pub fn locate(&self, input: &Input) -> Result<PathBuf> {
        (self.locate)(input)
    }

    /// Writes a result, and returns it for `stage.json` too.
    fn write_json(&self, result: &impl Serialize) -> Result<Value> {
        let result = serde_json::to_value(result)?;
        write_json(self.output, &result)?;
        Ok(result)
    }

    fn note(&self, note: &Note<'_>) {
        self.watch.note(self.name, note);
    }
}
