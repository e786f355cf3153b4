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
}

/// What one stage can take from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gives {
    /// A directory with a tokenizer's files.
    Tokenizer,
    /// A checkpoint's directory.
    Model,
}

impl fmt::Display for Gives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Gives::Tokenizer => "tokenizer",
            Gives::Model => "model",
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

    /// The name of the stage whose result it is, if any.
    pub fn stage(&self) -> Option<&str> {
        match self {
            Input::Stage(name) => Some(name),
            Input::Path(_) | Input::Hub(_) | Input::Bytes => None,
        }
    }

    /// Where the input is, fetching it if necessary; `None` for a stage's result, whose place depends on the
    /// run.
    pub fn path(&self, watch: &dyn Watch) -> Result<Option<PathBuf>> {
        match self {
            Input::Stage(_) => Ok(None),
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
            Input::Path(path) => write!(f, "{}", path.display()),
            Input::Hub(model) => write!(f, "{model}"),
            Input::Bytes => f.write_str(BYTES),
        }
    }
}
