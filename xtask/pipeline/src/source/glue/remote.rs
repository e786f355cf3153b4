//! Remote copies of GLUE's files, and fetching them into a folder.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use glue_eval::Task;

use crate::Watch;
use crate::source::hub::HubName;

/// A dataset on the Hugging Face Hub laid out like `nyu-mll/glue`, or a folder on the web in either layout.
#[derive(Clone, Debug)]
pub enum RemoteGlue {
    /// A dataset on the Hugging Face Hub.
    Hub(HubName),
    /// A folder on the web.
    Web(Address),
}

/// The address of a folder, `https://…`.
#[derive(Clone, Debug, PartialEq)]
pub struct Address(String);

/// The outcome of [`RemoteGlue::fetch`].
pub struct FetchedGlue {
    /// The files of the requested tasks, including those that were there before.
    pub files: Vec<Fetched>,
    /// Splits of tasks that are missing; only test sets may be.
    pub missing: Vec<String>,
}

/// A file that is now present.
pub struct Fetched {
    /// Its path relative to the folder.
    pub name: String,
    /// SHA-256 in hexadecimal.
    pub hash: String,
    /// Whether it was newly fetched.
    pub anew: bool,
}

impl RemoteGlue {
    /// Fetches these tasks' files into a folder, and writes their checksums there.
    #[cfg(feature = "hub")]
    pub fn fetch(&self, tasks: &[Task], output: &Path, watch: &dyn Watch) -> Result<FetchedGlue> {
        use anyhow::Context;
        use fusion_core::atomic::Place;
        use glue_eval::data::Split;

        use super::web::Website;
        use super::{Checksums, hub};

        Place::of(output)?;
        std::fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
        let mut sums = Checksums::read(output)?.unwrap_or_default();
        let fetch: Box<dyn Fn(Task, Split) -> Result<Vec<Fetched>>> = match self {
            RemoteGlue::Hub(name) => {
                let (cache, known) = (hub::fetch(name, tasks)?, sums.clone());
                Box::new(move |task, split| hub::copy(task, split, &cache, output, &known))
            }
            RemoteGlue::Web(address) => {
                let (website, known) = (Website::open(address, watch)?, sums.clone());
                Box::new(move |task, split| website.fetch(task, split, output, &known))
            }
        };
        let mut fetched = FetchedGlue { files: Vec::new(), missing: Vec::new() };
        for &task in tasks {
            for split in Split::all(task) {
                let files = fetch(task, split)?;
                if files.is_empty() {
                    fetched.missing.push(format!("{task} {split}"));
                }
                fetched.files.extend(files);
            }
        }
        sums.0.extend(fetched.files.iter().map(|file| (file.name.clone(), file.hash.clone())));
        sums.write(output)?;
        Ok(fetched)
    }

    /// Always fails: fetching needs the feature `hub`.
    #[cfg(not(feature = "hub"))]
    pub fn fetch(&self, _: &[Task], _: &Path, _: &dyn Watch) -> Result<FetchedGlue> {
        Err(crate::NotBuilt { features: vec!["hub"] }.into())
    }
}

impl FromStr for RemoteGlue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(HubName::PREFIX) {
            Some(name) => Ok(RemoteGlue::Hub(name.parse()?)),
            None if text.contains("://") => Ok(RemoteGlue::Web(text.parse()?)),
            None => Err(format!(
                "{text:?} is neither of the form hf:ORG/NAME[@REVISION] nor an address, https://…"
            )),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_folder = rest.is_some_and(|rest| {
            !rest.starts_with('/') && !rest.is_empty() && !rest.contains(['?', '#', ' '])
        });
        if !is_folder {
            return Err(format!("{text:?} is not the address of a folder, such as https://HOST/glue"));
        }
        Ok(Address(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses() {
        let read = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(read("https://host/glue/"), Ok("https://host/glue".to_owned()));
        assert_eq!(read("http://127.0.0.1:8000"), Ok("http://127.0.0.1:8000".to_owned()));
        for text in [
            "",
            "host/glue",
            "https://",
            "https:///glue",
            "ftp://host",
            "https://host/glue?x=1",
            "https://a b",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
