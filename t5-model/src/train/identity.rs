//! What determines a result, so that nothing made from something else is continued or reused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::optimizer::WARM_UP_SHARE;

/// Everything that determines a result, by name. Contains whole values rather than a hash, so that a
/// difference can be named. Stored as a JSON object; nested objects are compared value by value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(Map<String, Value>);

/// A value that differs between two identities.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Dotted if the value is inside an object: `schedule.kind`.
    pub key: String,
    /// The value before as JSON, or `absent`.
    pub was: String,
    /// The value now.
    pub now: String,
}

/// Something made with another identity.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "{} was trained with another `{}` ({}, now {}), so it cannot be continued; restore the setting or choose another directory",
    path.display(), difference.key, difference.was, difference.now
)]
pub struct Changed {
    /// The checkpoint, or the result.
    pub path: PathBuf,
    /// The first difference.
    pub difference: Difference,
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

    /// Inserts a value, replacing an earlier one of the same name.
    pub fn insert(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    /// Inserts several values.
    pub fn extend(&mut self, values: &BTreeMap<String, Value>) {
        self.0.extend(values.iter().map(|(key, value)| (key.clone(), value.clone())));
    }

    /// Removes a value that does not affect the result, which may be inside objects: `schedule.kind`.
    pub fn remove(&mut self, key: &str) {
        let (mut object, mut key) = (&mut self.0, key);
        while let Some((outer, inner)) = key.split_once('.').filter(|(outer, _)| object.get(*outer).is_some())
        {
            let Some(Value::Object(own)) = object.get_mut(outer) else { return };
            (object, key) = (own, inner);
        }
        object.shift_remove(key);
    }

    /// A hash of all values, in hexadecimal; of this order.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(Value::Object(self.0.clone()).to_string());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The same, stored in order of the keys.
    pub fn sorted(mut self) -> Self {
        self.0.sort_keys();
        self
    }

    /// The same without nested objects, stored by dotted keys in their order.
    pub(super) fn flattened(&self) -> Self {
        Identity(self.values().into_iter().map(|(key, value)| (key, value.clone())).collect())
    }

    /// The differences from an earlier identity, in order of the keys. A value that follows from another, and
    /// differs because that does, is left out.
    pub fn differences(&self, earlier: &Identity) -> Vec<Difference> {
        let (was, now) = (earlier.values(), self.values());
        let keys: BTreeSet<_> = was.keys().chain(now.keys()).collect();
        let differs = |key: &str| given(&was, key) != given(&now, key);
        let follows = |key: &str| {
            FOLLOWS.iter().any(|(effect, cause, share)| {
                let Some(object) = object_of(key, effect) else { return false };
                let cause = &format!("{object}{cause}");
                let as_usual = |values: &BTreeMap<String, &Value>| {
                    let number = |key| given(values, key).and_then(Value::as_u64);
                    number(key).is_some() && number(key) == number(cause).map(|cause| cause / share)
                };
                differs(cause) && as_usual(&was) && as_usual(&now)
            })
        };
        let changed = keys.into_iter().filter(|&key| differs(key) && !follows(key));
        let value = |values: &BTreeMap<String, &Value>, key| {
            values.get(key).map_or(ABSENT.into(), |value| value.to_string())
        };
        changed
            .map(|key| Difference { key: key.clone(), was: value(&was, key), now: value(&now, key) })
            .collect()
    }

    /// Checks whether `path`, made with an earlier identity, may be continued.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, earlier: &Identity, path: &Path) -> Result<(), Changed> {
        // Earlier versions recorded what decides no weights.
        let counts = |difference: &Difference| {
            !(NO_LONGER.contains(&difference.key.as_str()) && difference.now == ABSENT)
        };
        let first = self.differences(earlier).into_iter().find(counts);
        first.map_or(Ok(()), |difference| Err(Changed { path: path.into(), difference }))
    }

    /// The values by dotted key.
    fn values(&self) -> BTreeMap<String, &Value> {
        let mut values = BTreeMap::new();
        collect("", &self.0, &mut values);
        values
    }
}

/// Keys that settings have had, and their present ones. Files of earlier versions have the former.
pub const RENAMED: [(&str, &str); 9] = [
    ("schedule.peak", "learning_rate"),
    ("schedule.warm_up", "warm_up"),
    ("schedule.warm_up_from", "warm_up_from"),
    ("schedule.cycles", "cycles"),
    ("schedule.offset", "schedule_offset"),
    ("schedule.re_warm_up", "re_warm_up"),
    ("schedule.decay.kind", "schedule.kind"),
    ("schedule.decay.minimum", "schedule.minimum"),
    ("schedule.decay.offset", "schedule.timescale"),
];

/// What an identity may have that no longer counts.
const NO_LONGER: [&str; 1] = ["evaluate_every"];

/// In place of a value that is not there.
const ABSENT: &str = "absent";

/// A key, the one whose value it usually follows from, and the share of it that it usually is.
const FOLLOWS: [(&str, &str, u64); 2] =
    [("warm_up", "steps", WARM_UP_SHARE), ("micro_batch_size", "batch_size", 1)];

/// What precedes `own` in a dotted key that ends with it: nothing, or an object's key and a dot.
fn object_of<'a>(key: &'a str, own: &str) -> Option<&'a str> {
    key.strip_suffix(own).filter(|object| object.is_empty() || object.ends_with('.'))
}

/// A value, unless it is null: a setting without a value is the same as one that did not exist yet.
fn given<'a>(values: &BTreeMap<String, &'a Value>, key: &str) -> Option<&'a Value> {
    values.get(key).copied().filter(|value| !value.is_null())
}

fn collect<'a>(prefix: &str, object: &'a Map<String, Value>, values: &mut BTreeMap<String, &'a Value>) {
    for (key, value) in object {
        let key = format!("{prefix}{key}");
        match value {
            Value::Object(inner) => collect(&format!("{key}."), inner, values),
            value => {
                let present = |(earlier, present): &(&str, &str)| {
                    object_of(&key, earlier).map(|object| format!("{object}{present}"))
                };
                values.insert(RENAMED.iter().find_map(present).unwrap_or(key), value);
            }
        }
    }
}

impl From<Identity> for Value {
    fn from(identity: Identity) -> Self {
        Value::Object(identity.0)
    }
}

/// `` `steps` was 10, is 20 ``
impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` was {}, is {}", self.key, self.was, self.now)
    }
}
