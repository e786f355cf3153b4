//! What decides a run's result, so that a checkpoint is not continued by another run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Result, TrainError};
use super::run::Run;

/// Settings that change no weight and no evaluation.
const FREE: [&str; 4] = ["checkpoint_every", "keep_checkpoints", "keep_optimizer", "log_every"];

/// Values by dotted key: settings as they are called there, `model.…` for the configuration, `tokenizer`, and what
/// the caller adds. Whole values, not a hash, so that a difference can be named.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Identity(BTreeMap<String, Value>);

impl Identity {
    pub fn of(run: &Run<'_>) -> Self {
        let mut identity = Identity(run.identity.clone());
        if let Ok(Value::Object(settings)) = serde_json::to_value(run.settings) {
            for (key, value) in settings {
                if !FREE.contains(&key.as_str()) {
                    identity.insert(key, value);
                }
            }
        }
        // Set or not, the same thing.
        identity.insert("micro_batch_size".into(), run.settings.micro_batch_size().into());
        identity.insert("model".into(), Value::Object(run.config.to_json()));
        identity.insert("model.weights".into(), run.lineage.blake3.clone().into());
        if let Some(carried) = run.carried() {
            identity.insert("model.optimizer".into(), carried.blake3().into());
            identity.insert("model.optimizer.step".into(), carried.step().into());
        }
        identity.insert("tokenizer".into(), run.tokenizer.fingerprint().into());
        identity
    }

    /// Inserts a value, or those of an object, each under its own key.
    fn insert(&mut self, key: String, value: Value) {
        match value {
            Value::Object(values) => {
                for (inner, value) in values {
                    self.insert(format!("{key}.{inner}"), value);
                }
            }
            value => {
                self.0.insert(key, value);
            }
        }
    }

    /// # Errors
    /// The first key whose value is another one in `checkpoint`.
    pub fn check(&self, earlier: &Identity, checkpoint: &Path) -> Result<()> {
        for key in earlier.0.keys().chain(self.0.keys()) {
            let (was, now) = (earlier.0.get(key), self.0.get(key));
            if was != now {
                return Err(TrainError::Changed {
                    checkpoint: checkpoint.into(),
                    key: key.clone(),
                    was: described(was),
                    now: described(now),
                });
            }
        }
        Ok(())
    }
}

fn described(value: Option<&Value>) -> String {
    value.map_or("absent".into(), Value::to_string)
}
