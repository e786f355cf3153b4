//! What a recipe is made of: stages, each with its work. The commands that take one step build the same.

pub mod evaluate;
pub mod fuse;
pub mod glue;
pub mod pretrain;
pub mod text;
pub mod tokenizer;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use glue_eval::Task;
use serde::Serialize;

use crate::Watch;
use crate::source::hub::HubName;
use crate::source::{ModelPlace, fetch_model};

/// A step of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub name: String,
    pub work: Work,
}

/// What a stage does, with everything that decides its result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Work {
    Tokenizer(tokenizer::TrainTokenizer),
    Pretrain(Box<pretrain::Pretrain>),
    Fuse(fuse::Fuse),
    Glue(glue::Glue),
    Evaluate(evaluate::Evaluate),
}

/// Where a stage's input comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The result of another stage.
    Stage(String),
    /// A directory or file.
    Path(PathBuf),
    /// A model on the Hugging Face Hub.
    Hub(HubName),
}

impl From<ModelPlace> for Source {
    fn from(place: ModelPlace) -> Self {
        match place {
            ModelPlace::Directory(path) => Source::Path(path),
            ModelPlace::Hub(model) => Source::Hub(model),
        }
    }
}

impl Source {
    pub fn stage(&self) -> Option<&str> {
        match self {
            Source::Stage(name) => Some(name),
            Source::Path(_) | Source::Hub(_) => None,
        }
    }

    /// Where it lies, once it has been fetched; a stage's result has its place in a run.
    pub fn path(&self, watch: &dyn Watch) -> Result<Option<PathBuf>> {
        match self {
            Source::Stage(_) => Ok(None),
            Source::Path(path) => Ok(Some(path.clone())),
            Source::Hub(model) => fetch_model(model, watch).map(Some),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Stage(name) => f.write_str(name),
            Source::Path(path) => write!(f, "{}", path.display()),
            Source::Hub(model) => write!(f, "{model}"),
        }
    }
}

impl Work {
    pub fn kind(&self) -> &'static str {
        match self {
            Work::Tokenizer(_) => "tokenizer",
            Work::Pretrain(_) => "pretrain",
            Work::Fuse(_) => "fuse",
            Work::Glue(_) => "glue",
            Work::Evaluate(_) => "evaluate",
        }
    }

    /// Whether the result is a model.
    pub fn gives_model(&self) -> bool {
        matches!(self, Work::Pretrain(_) | Work::Fuse(_))
    }

    /// The settings that change nothing about the result.
    pub fn neutral(&self) -> &'static [&'static str] {
        match self {
            Work::Pretrain(_) => t5_model::train::Settings::NEUTRAL,
            Work::Glue(_) => glue_eval::FineTuneSettings::NEUTRAL,
            Work::Tokenizer(_) | Work::Fuse(_) | Work::Evaluate(_) => &[],
        }
    }

    /// The tasks whose files it reads.
    pub fn tasks(&self) -> &[Task] {
        if let Work::Glue(work) = self { &work.tasks } else { &[] }
    }

    pub fn inputs(&self) -> Vec<&Source> {
        match self {
            Work::Tokenizer(_) => Vec::new(),
            Work::Pretrain(work) => {
                let model = match &work.start {
                    pretrain::Start::Random(_) => None,
                    pretrain::Start::Model(source) => Some(source),
                };
                model.into_iter().chain([&work.data.tokenizer]).collect()
            }
            Work::Fuse(work) => {
                let tokenizer = work.calibrate.as_ref().map(|calibrate| &calibrate.data.tokenizer);
                work.parents.iter().chain(tokenizer).collect()
            }
            Work::Glue(work) => vec![&work.model],
            Work::Evaluate(work) => vec![&work.model, &work.data.tokenizer],
        }
    }
}

/// Where a stage of this kind keeps what others read.
pub fn result_in(work: &Work, directory: &Path) -> PathBuf {
    match work {
        Work::Tokenizer(_) => directory.join("tokenizer"),
        Work::Pretrain(_) | Work::Fuse(_) => directory.join("model"),
        Work::Glue(_) => directory.join("glue.json"),
        Work::Evaluate(_) => directory.join("evaluation.json"),
    }
}
