//! Where GLUE's files come from.

mod checksums;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod hub;
mod remote;
#[cfg(feature = "hub")]
mod web;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use glue_eval::Task;
use glue_eval::data::Split;

use super::hub::HubName;
use crate::not_built::require;

pub use checksums::Checksums;
#[cfg(feature = "hub")]
use hub::fetch;
pub use remote::{Address, Fetched, FetchedGlue, RemoteGlue};

/// A folder of GLUE's files in either layout, or a dataset on the Hugging Face Hub laid out like
/// `nyu-mll/glue`.
#[derive(Clone, Debug, PartialEq)]
pub enum GluePlace {
    /// A folder on this machine.
    Directory(PathBuf),
    /// A dataset, of which only the files of the requested tasks are fetched.
    Hub(HubName),
}

impl GluePlace {
    /// The folder with the tasks' files, fetching them if necessary.
    pub fn directory(&self, tasks: &[Task]) -> Result<PathBuf> {
        match self {
            GluePlace::Directory(path) => {
                let unreadable = || format!("cannot read GLUE's files in {}", path.display());
                fs::read_dir(path).with_context(unreadable)?;
                let parquet = ("parquet", cfg!(feature = "parquet") || !has_parquet(path, tasks));
                require(&[parquet])?;
                Ok(path.clone())
            }
            GluePlace::Hub(name) => {
                require(&[("hub", cfg!(feature = "hub")), ("parquet", cfg!(feature = "parquet"))])?;
                fetch(name, tasks)
            }
        }
    }
}

#[cfg(not(feature = "hub"))]
fn fetch(_: &HubName, _: &[Task]) -> Result<PathBuf> {
    Err(crate::NotBuilt { features: vec!["hub"] }.into())
}

/// Whether any of the tasks' files in a folder are Parquet.
fn has_parquet(folder: &Path, tasks: &[Task]) -> bool {
    let mut splits = tasks.iter().flat_map(|&task| Split::all(task).map(move |split| (task, split)));
    let is_parquet = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "parquet");
    splits.any(|(task, split)| split.find(task, folder).is_ok_and(|files| files.iter().any(is_parquet)))
}

impl FromStr for GluePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(HubName::PREFIX) {
            Some(name) => Ok(GluePlace::Hub(name.parse()?)),
            None if text.is_empty() => Err("the name of the folder is empty".to_owned()),
            None if text.contains("://") => {
                Err(format!("files at an address are fetched first: data fetch {text} --output DIR"))
            }
            None => Ok(GluePlace::Directory(text.into())),
        }
    }
}
