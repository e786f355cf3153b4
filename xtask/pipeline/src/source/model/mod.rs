//! Locations of models.

#[cfg(feature = "hub")]
mod fetch;
mod files;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;

use super::content;
use super::hub::HubName;
use crate::Watch;

#[cfg(feature = "hub")]
pub use fetch::fetch_model;
pub use files::{FILES, Kind as FileKind, tokenizer_files};
pub use t5_model::GENERATION_CONFIG;

/// A checkpoint's directory, or a folder that holds one (see [`content`]), or a model on the Hugging Face Hub.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelPlace {
    /// A checkpoint's directory.
    Directory(PathBuf),
    /// A model on the Hub, fetched into the cache when it is needed.
    Hub(HubName),
}

impl ModelPlace {
    /// The directory with the model's files, fetching them if necessary.
    pub fn directory(&self, watch: &dyn Watch) -> Result<PathBuf> {
        match self {
            ModelPlace::Directory(path) => content(path),
            ModelPlace::Hub(model) => fetch_model(model, watch),
        }
    }

    /// The path of a model that needs no fetching, as it was given.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ModelPlace::Directory(path) => Some(path),
            ModelPlace::Hub(_) => None,
        }
    }

    /// The last component of the directory's path, or the model's full name.
    pub fn name(&self) -> String {
        let last = self.path().and_then(Path::file_name);
        last.map_or_else(|| self.to_string(), |name| name.to_string_lossy().into_owned())
    }
}

/// Always fails: fetching needs the feature `hub`.
#[cfg(not(feature = "hub"))]
pub fn fetch_model(_: &HubName, _: &dyn Watch) -> Result<PathBuf> {
    Err(crate::NotBuilt { features: vec!["hub"] }.into())
}

impl FromStr for ModelPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(HubName::PREFIX) {
            Some(name) => Ok(ModelPlace::Hub(name.parse()?)),
            None if text.is_empty() => Err("the name of a model is empty".to_owned()),
            None => Ok(ModelPlace::Directory(text.into())),
        }
    }
}

impl fmt::Display for ModelPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelPlace::Directory(path) => write!(f, "{}", path.display()),
            ModelPlace::Hub(model) => write!(f, "{model}"),
        }
    }
}
