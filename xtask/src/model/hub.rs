//! Models on the Hugging Face Hub.

#[cfg(feature = "hub")]
mod fetch;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use serde::Serialize;

/// `hf:ORG/NAME[@REVISION]`: a model, at a branch, tag or commit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "String")]
pub struct HubModel {
    name: String,
    revision: Option<String>,
}

impl HubModel {
    pub const PREFIX: &str = "hf:";

    #[cfg(feature = "hub")]
    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The directory of the model's files in the hub's cache. A model that is there is not looked for again: the same
    /// name means the same weights until the cache is cleared or a revision asks for others.
    #[cfg(feature = "hub")]
    pub fn fetch(&self) -> Result<PathBuf> {
        fetch::fetch(self)
    }

    #[cfg(not(feature = "hub"))]
    pub fn fetch(&self) -> Result<PathBuf> {
        anyhow::bail!("{self} is on the Hugging Face Hub, which needs the feature `hub` of this program")
    }
}

impl FromStr for HubModel {
    type Err = String;

    /// Without the prefix.
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
        Ok(HubModel { name: name.to_owned(), revision: revision.map(str::to_owned) })
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

impl From<HubModel> for String {
    fn from(model: HubModel) -> Self {
        model.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::HubModel;

    #[test]
    fn names() {
        let read = |text: &str| text.parse::<HubModel>().map(|model| model.to_string());
        for name in ["google/t5-v1_1-small", "t5-small", "a/b@main", "a/b@refs/pr/1", "a/b@0a1b"] {
            assert_eq!(read(name), Ok(format!("hf:{name}")));
        }
        for name in ["", "/", "a/", "a/b/c", "../b", "a/..", "a/b@", "a/b@../c", "a b", "a/b?x", "a/b@c@d"] {
            assert!(read(name).is_err(), "{name}");
        }
    }
}
