//! Sources of stages' inputs.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use crate::Watch;
use crate::checkpoint::BYTES;
use crate::source::hub::HubName;
use crate::source::{ModelPlace, content, fetch_model};

/// A model or a tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// The result of another stage.
    Stage(String),
    /// A directory or file, or a folder that holds it (see [`content`]).
    Path(PathBuf),
    /// A model on the Hugging Face Hub.
    Hub(HubName),
    /// ByT5's vocabulary of bytes.
    Bytes,
    /// The model of a stage that trains as it is after a step.
    #[serde(untagged)]
    Step {
        /// The stage's name.
        stage: String,
        /// Updates of the weights.
        step: u64,
    },
}

/// What one stage can take from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gives {
    /// A directory with a tokenizer's files.
    Tokenizer,
    /// A checkpoint's directory.
    Model,
    /// Models after each step of a training.
    Step,
}

impl fmt::Display for Gives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Gives::Tokenizer => "tokenizer",
            Gives::Model => "model",
            Gives::Step => "model of a step",
        })
    }
}

impl From<ModelPlace> for Input {
    fn from(place: ModelPlace) -> Self {
        match place {
            ModelPlace::Directory(path) => Input::Path(path),
            ModelPlace::Hub(model) => Input::Hub(model),
        }
    }
}

impl Input {
    /// A tokenizer's place: a path, or [`BYTES`].
    pub fn tokenizer(place: PathBuf) -> Self {
        if place == Path::new(BYTES) { Input::Bytes } else { Input::Path(place) }
    }

    /// The name of the stage that makes it, if any.
    pub fn stage(&self) -> Option<&str> {
        match self {
            Input::Stage(name) | Input::Step { stage: name, .. } => Some(name),
            Input::Path(_) | Input::Hub(_) | Input::Bytes => None,
        }
    }

    /// A stage's name, and that of a step in it: `trunk@1000`.
    pub fn parts(name: &str) -> (&str, Option<&str>) {
        name.split_once('@').map_or((name, None), |(stage, step)| (stage, Some(step)))
    }

    /// The step of the stage's training after which it is taken; `None` for its result.
    pub fn step(&self) -> Option<u64> {
        match self {
            Input::Step { step, .. } => Some(*step),
            Input::Stage(_) | Input::Path(_) | Input::Hub(_) | Input::Bytes => None,
        }
    }

    /// Where the input is, fetching it if necessary; `None` for a stage's result, whose place depends on the
    /// run.
    pub fn path(&self, watch: &dyn Watch) -> Result<Option<PathBuf>> {
        match self {
            Input::Stage(_) | Input::Step { .. } => Ok(None),
            Input::Path(path) => content(path).map(Some),
            Input::Hub(model) => fetch_model(model, watch).map(Some),
            Input::Bytes => Ok(Some(BYTES.into())),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Stage(name) => f.write_str(name),
            Input::Step { stage, step } => write!(f, "{stage}@{step}"),
            Input::Path(path) => write!(f, "{}", path.display()),
            Input::Hub(model) => write!(f, "{model}"),
            Input::Bytes => f.write_str(BYTES),
        }
    }
}
