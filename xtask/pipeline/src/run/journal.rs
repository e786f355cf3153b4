//! `stage.json`: written last, so that a stage with one is finished; it says from what.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::write_json;

const FILE: &str = "stage.json";
/// The identity alone, written first.
const BEGUN: &str = "begun.json";
const VERSION: u32 = 1;

/// Settings of a training that change nothing about its result.
const NEUTRAL: [&str; 3] = ["checkpoint_every", "keep_checkpoints", "log_every"];

/// What decides a stage's result.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Identity {
    /// The stage's work, with its kind.
    pub settings: Value,
    /// The fingerprint of each input, by stage or path.
    pub inputs: BTreeMap<String, String>,
}

/// A finished stage.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    pub version: u32,
    #[serde(flatten)]
    pub identity: Identity,
    pub result: Value,
    /// Wall-clock time of the process that finished it.
    pub seconds: f64,
}

impl Identity {
    pub fn new(mut settings: Value, inputs: BTreeMap<String, String>) -> Self {
        if let Some(settings) = settings.as_object_mut() {
            settings.retain(|key, _| !NEUTRAL.contains(&key.as_str()));
        }
        Identity { settings, inputs }
    }

    /// A hash of it, in hexadecimal.
    pub fn fingerprint(&self) -> Result<String> {
        let digest = Sha256::digest(serde_json::to_vec(self)?);
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What has changed since `old`, in words; nothing if nothing has.
    pub fn changes(&self, old: &Identity) -> Vec<String> {
        let mut changes = Vec::new();
        compare("", &old.settings, &self.settings, &mut changes);
        for (name, fingerprint) in &self.inputs {
            if old.inputs.get(name) != Some(fingerprint) {
                changes.push(format!("its input {name:?} is another"));
            }
        }
        changes
    }
}

fn compare(path: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    if old == new {
        return;
    }
    let (Some(old_keys), Some(new_keys)) = (old.as_object(), new.as_object()) else {
        changes.push(format!("`{path}` was {old}, is {new}"));
        return;
    };
    let keys: std::collections::BTreeSet<&String> = old_keys.keys().chain(new_keys.keys()).collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let value = |keys: &serde_json::Map<String, Value>| keys.get(key).cloned().unwrap_or(Value::Null);
        compare(&path, &value(old_keys), &value(new_keys), changes);
    }
}

impl Identity {
    /// What an unfinished stage in `directory` was begun with.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        read(&directory.join(BEGUN))
    }

    pub fn write(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join(BEGUN), self)
    }
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
    pub fn new(identity: Identity, result: Value, seconds: f64) -> Self {
        Record { version: VERSION, identity, result, seconds }
    }

    /// The record of the stage in `directory`, if it is finished.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let record: Option<Record> = read(&path)?;
        if let Some(Record { version, .. }) = &record {
            ensure!(
                *version <= VERSION,
                "{} is of version {version}, this program reads {VERSION}",
                path.display()
            );
        }
        Ok(record)
    }

    pub fn write(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join(FILE), self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::Identity;

    #[test]
    fn changes_are_named_and_neutral_settings_are_not_compared() {
        let identity = |settings, input: &str| {
            Identity::new(settings, BTreeMap::from([("small".to_owned(), input.to_owned())]))
        };
        let old = identity(json!({ "steps": 600, "log_every": 10, "data": { "text": ["a"] } }), "1");
        let new = identity(json!({ "steps": 800, "log_every": 99, "data": { "text": ["b"] } }), "2");
        let expected = [
            "`data.text` was [\"a\"], is [\"b\"]",
            "`steps` was 600, is 800",
            "its input \"small\" is another",
        ];
        assert_eq!(new.changes(&old), expected);
        let same = identity(json!({ "steps": 600, "log_every": 99, "data": { "text": ["a"] } }), "1");
        assert_eq!(same.changes(&old), Vec::<String>::new());
        assert_eq!(same.fingerprint().ok(), old.fingerprint().ok());
        assert_ne!(new.fingerprint().ok(), old.fingerprint().ok());
    }
}
