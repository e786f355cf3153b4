//! Where GLUE's files come from.

mod checksums;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod web;

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use glue_eval::Task;

use super::hub::HubName;

pub use checksums::Checksums;
#[cfg(feature = "hub")]
pub use hub::{copy, fetch};
#[cfg(feature = "hub")]
pub use web::{Address, Fetched, Website};

/// A folder of GLUE's files in either layout, or a dataset in that of `nyu-mll/glue` on the Hugging Face Hub.
#[derive(Clone, Debug, PartialEq)]
pub enum GluePlace {
    Directory(PathBuf),
    Hub(HubName),
}

impl GluePlace {
    /// The folder in which the tasks' files are, once they have been fetched.
    pub fn directory(&self, tasks: &[Task]) -> Result<PathBuf> {
        match self {
            GluePlace::Directory(path) => {
                let unreadable = || format!("cannot read GLUE's files in {}", path.display());
                fs::read_dir(path).with_context(unreadable)?;
                Ok(path.clone())
            }
            GluePlace::Hub(name) => fetch(name, tasks),
        }
    }
}

#[cfg(not(feature = "hub"))]
pub fn fetch(name: &HubName, _: &[Task]) -> Result<PathBuf> {
    crate::source::hub::refuse(name)
}

impl FromStr for GluePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(HubName::PREFIX) {
            Some(name) => Ok(GluePlace::Hub(name.parse()?)),
            None if text.is_empty() => Err("the name of the folder is empty".to_owned()),
            None if text.contains("://") => Err(format!(
                "files at an address are fetched first: cargo xtask data fetch {text} --output DIR"
            )),
            None => Ok(GluePlace::Directory(text.into())),
        }
    }
}
