//! The Hugging Face Hub: names of repositories, and fetching from them.

#[cfg(feature = "hub")]
mod connection;
#[cfg(feature = "hub")]
mod environment;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

#[cfg(feature = "hub")]
use connection::is_commit;
#[cfg(feature = "hub")]
pub use connection::{Cache, Hub, HubRepo, RepoType};
#[cfg(feature = "hub")]
pub use environment::Environment;

/// `hf:ORG/NAME[@REVISION]`: a model or dataset at a branch, tag or commit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "String")]
pub struct HubName {
    name: String,
    revision: Option<String>,
}

impl HubName {
    /// Distinguishes names on the Hub from paths.
    pub const PREFIX: &str = "hf:";

    /// Where the cache has a model of this name, or some of its files, without asking the Hub.
    pub fn cached(&self) -> Option<PathBuf> {
        #[cfg(feature = "hub")]
        {
            let cache = Environment::here().ok()?.cache();
            HubRepo { name: self.clone(), kind: RepoType::Model }.cached(&cache)
        }
        #[cfg(not(feature = "hub"))]
        None
    }

    #[cfg(feature = "hub")]
    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl FromStr for HubName {
    type Err = String;

    /// Parses a name without the prefix.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_name = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(usual);
        let parts: Vec<&str> = name.split('/').collect();
        let revision_is_sound = revision.is_none_or(|revision| revision.split('/').all(is_name));
        if parts.len() > 2 || !parts.iter().all(|part| is_name(part)) || !revision_is_sound {
            return Err(format!("\"hf:{text}\" is not of the form hf:ORG/NAME[@REVISION]"));
        }
        Ok(HubName { name: name.to_owned(), revision: revision.map(str::to_owned) })
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

impl From<HubName> for String {
    fn from(name: HubName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::HubName;

    #[test]
    fn names() {
        let read = |text: &str| text.parse::<HubName>().map(|name| name.to_string());
        for name in ["google/t5-v1_1-small", "t5-small", "a/b@main", "a/b@refs/pr/1", "a/b@0a1b"] {
            assert_eq!(read(name), Ok(format!("hf:{name}")));
        }
        for name in ["", "/", "a/", "a/b/c", "../b", "a/..", "a/b@", "a/b@../c", "a b", "a/b?x", "a/b@c@d"] {
            assert!(read(name).is_err(), "{name}");
        }
    }
}
