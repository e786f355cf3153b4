//! `stage.json`: written last, so that it marks a stage as finished; it records what the result was made
//! from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use t5_model::train::{Difference, Identity};

use super::{VERSION, check_version};
use crate::write_json;

pub(super) const FILE: &str = "stage.json";
/// The identity alone, written at the start.
pub(super) const BEGUN: &str = "begun.json";

const SETTINGS: &str = "settings";
const INPUTS: &str = "inputs";

/// A finished stage.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// The version of the file's format; a newer one than this program's is refused.
    pub version: u32,
    /// What the result was made from.
    #[serde(flatten)]
    pub identity: Identity,
    /// What the stage's work returned.
    pub result: Value,
    /// Wall-clock time of the process that finished the stage.
    pub seconds: f64,
}

/// What determines a stage's result: the settings of its work and the fingerprint of each input, by stage or
/// path.
pub fn identity(settings: Identity, inputs: BTreeMap<String, String>) -> Identity {
    let mut identity = Identity::default();
    identity.insert(SETTINGS, settings);
    identity.insert(INPUTS, json!(inputs));
    identity
}

/// An identity's hash in hexadecimal.
pub fn fingerprint(identity: &Identity) -> Result<String> {
    let digest = Sha256::digest(serde_json::to_vec(identity)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Describes how an identity differs from an earlier one: settings first, then inputs.
pub fn changes(identity: &Identity, earlier: &Identity) -> Vec<String> {
    let (mut settings, mut inputs) = (Vec::new(), Vec::new());
    for Difference { key, was, now } in identity.differences(earlier) {
        match key.split_once('.') {
            Some((SETTINGS, key)) => settings.push(Difference { key: key.into(), was, now }.to_string()),
            Some((INPUTS, name)) => inputs.push(format!("its input {name:?} is another")),
            _ => settings.push(Difference { key, was, now }.to_string()),
        }
    }
    settings.append(&mut inputs);
    settings
}

/// The identity with which an unfinished stage in `directory` was started.
pub fn begun(directory: &Path) -> Result<Option<Identity>> {
    read(&directory.join(BEGUN))
}

/// Records that a stage starts with this identity.
pub fn begin(identity: &Identity, directory: &Path) -> Result<()> {
    write_json(&directory.join(BEGUN), identity)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value = serde_json::from_slice(&text);
    value
        .map(Some)
        .with_context(|| format!("{} is damaged; delete it to run the stage again", path.display()))
}

impl Record {
    /// A record in the current version of the format.
    pub fn new(identity: Identity, result: Value, seconds: f64) -> Self {
        Record { version: VERSION, identity, result, seconds }
    }

    /// The record of the stage in `directory`, if it has finished.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let record: Option<Record> = read(&path)?;
        record.iter().try_for_each(|record| check_version(record.version, &path))?;
        Ok(record)
    }

    /// Writes `stage.json`, which marks the stage in `directory` as finished.
    pub fn write(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join(FILE), self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use t5_model::train::{Identity, Settings};

    use super::{changes, fingerprint, identity};

    #[test]
    fn changes_are_named_and_neutral_settings_are_not_compared() {
        let identity = |settings, input: &str| {
            let settings = Identity::of_settings(&settings, Settings::NEUTRAL);
            identity(settings, BTreeMap::from([("small".to_owned(), input.to_owned())]))
        };
        let old = identity(json!({ "steps": 600, "log_every": 10, "data": { "text": ["a"] } }), "1");
        let new = identity(json!({ "steps": 800, "log_every": 99, "data": { "text": ["b"] } }), "2");
        let expected = [
            "`data.text` was [\"a\"], is [\"b\"]",
            "`steps` was 600, is 800",
            "its input \"small\" is another",
        ];
        assert_eq!(changes(&new, &old), expected);
        let same = identity(json!({ "steps": 600, "log_every": 99, "data": { "text": ["a"] } }), "1");
        assert_eq!(changes(&same, &old), Vec::<String>::new());
        assert_eq!(fingerprint(&same).ok(), fingerprint(&old).ok());
        assert_ne!(fingerprint(&new).ok(), fingerprint(&old).ok());
    }
}
