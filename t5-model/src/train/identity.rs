//! What decides a result, so that nothing is continued or reused that was made from something else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Result, TrainError};

/// Everything that decides a result, by name. Whole values rather than a hash, so that a difference can be named.
/// Stored as the JSON object it is; objects inside it are compared value by value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(Map<String, Value>);

/// A value that differs between two identities.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Dotted, where the value is inside an object: `schedule.peak`.
    pub key: String,
    pub was: Option<Value>,
    pub now: Option<Value>,
}

impl Identity {
    /// All fields of a settings struct except the neutral ones.
    pub fn of_settings(settings: &impl Serialize, neutral: &[&str]) -> Self {
        let mut identity = Identity::default();
        if let Ok(Value::Object(settings)) = serde_json::to_value(settings) {
            identity.0.extend(settings.into_iter().filter(|(key, _)| !neutral.contains(&key.as_str())));
        }
        identity
    }

    pub fn insert(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    pub fn extend(&mut self, values: &BTreeMap<String, Value>) {
        self.0.extend(values.iter().map(|(key, value)| (key.clone(), value.clone())));
    }

    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// The same, stored in the order of the keys.
    pub fn sorted(mut self) -> Self {
        self.0.sort_keys();
        self
    }

    /// The same, stored without objects inside, by dotted keys in their order.
    pub(super) fn flattened(&self) -> Self {
        Identity(self.values().into_iter().map(|(key, value)| (key, value.clone())).collect())
    }

    /// Where this differs from an earlier identity, in the order of the keys.
    pub fn differences(&self, earlier: &Identity) -> Vec<Difference> {
        let (was, now) = (earlier.values(), self.values());
        let keys: std::collections::BTreeSet<_> = was.keys().chain(now.keys()).collect();
        let changed = keys.into_iter().filter(|&key| was.get(key) != now.get(key));
        let value = |values: &BTreeMap<String, &Value>, key| values.get(key).map(|&value| value.clone());
        changed
            .map(|key| Difference { key: key.clone(), was: value(&was, key), now: value(&now, key) })
            .collect()
    }

    /// # Errors
    /// The first difference from the identity stored at `path`.
    pub fn check(&self, earlier: &Identity, path: &Path) -> Result<(), TrainError> {
        match self.differences(earlier).into_iter().next() {
            Some(difference) => Err(TrainError::Changed { path: path.into(), difference }),
            None => Ok(()),
        }
    }

    /// The values by dotted key.
    fn values(&self) -> BTreeMap<String, &Value> {
        let mut values = BTreeMap::new();
        collect("", &self.0, &mut values);
        values
    }
}

fn collect<'a>(prefix: &str, object: &'a Map<String, Value>, values: &mut BTreeMap<String, &'a Value>) {
    for (key, value) in object {
        let key = format!("{prefix}{key}");
        match value {
            Value::Object(inner) => collect(&format!("{key}."), inner, values),
            value => drop(values.insert(key, value)),
        }
    }
}

impl Difference {
    /// The value before and the value now, as JSON.
    pub fn described(&self) -> [String; 2] {
        [&self.was, &self.now].map(|value| value.as_ref().map_or("absent".into(), Value::to_string))
    }
}

/// `` `steps` was 10, is 20 ``
impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [was, now] = self.described();
        write!(formatter, "`{}` was {was}, is {now}", self.key)
    }
}
