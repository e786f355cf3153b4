//! What this project makes of the keys that transformers reads from the files of a T5: `config.json`,
//! `generation_config.json`, `tokenizer_config.json` and `special_tokens_map.json`.
//!
//! A directory may say the same thing in several places, under old names and new ones. Every key that
//! transformers knows has a row in one of the three tables: it is honoured, or cannot change a number, or is
//! refused by name, or the user is told that it is not followed. `tests/keys.rs` compares each row with what
//! transformers does (`tests/goldens/keys_goldens.py`), and fails if transformers knows a key that has none.

mod config;
mod generation;
mod tokenizer;

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

pub use config::CONFIG;
pub use generation::GENERATION;
pub use tokenizer::TOKENIZER;

/// A key, and what is made of it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it stands in the file.
    pub name: &'static str,
    /// What is made of it.
    pub treatment: Treatment,
}

/// What is made of a key.
#[derive(Clone, Copy, Debug)]
pub enum Treatment {
    /// It means here what it means in transformers.
    Honoured,
    /// It changes no number, no id and no end of an answer.
    Immaterial {
        /// Why not.
        because: &'static str,
    },
    /// A value that would change something is an error.
    Refused {
        /// Whether a value changes nothing.
        harmless: fn(&Value) -> bool,
        /// What it would change.
        because: &'static str,
    },
    /// A value that would change something is not followed, and the user is told.
    Told {
        /// Whether a value changes nothing.
        harmless: fn(&Value) -> bool,
    },
}

const fn honoured(name: &'static str) -> Key {
    Key { name, treatment: Treatment::Honoured }
}

const fn immaterial(name: &'static str, because: &'static str) -> Key {
    Key { name, treatment: Treatment::Immaterial { because } }
}

const fn refused(name: &'static str, harmless: fn(&Value) -> bool, because: &'static str) -> Key {
    Key { name, treatment: Treatment::Refused { harmless, because } }
}

const fn told(name: &'static str, harmless: fn(&Value) -> bool) -> Key {
    Key { name, treatment: Treatment::Told { harmless } }
}

/// Null, false, zero, or an empty text, list or object: what Python takes for false.
fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
    }
}

/// Null or true.
fn is_true(value: &Value) -> bool {
    value.is_null() || *value == Value::Bool(true)
}

/// Null or one.
fn is_one(value: &Value) -> bool {
    value.is_null() || value.as_f64() == Some(1.0)
}

/// Fails with the first key of a file that is refused.
pub(crate) fn check(table: &[Key], values: &Map<String, Value>, path: &Path) -> Result<()> {
    for Key { name, treatment } in table {
        let Treatment::Refused { harmless, because } = treatment else { continue };
        if let Some(value) = values.get(*name).filter(|value| !harmless(value)) {
            let problem = format!("{name} is {value}: {because}");
            return Err(Error::Config { path: path.into(), problem });
        }
    }
    Ok(())
}

/// The keys of a file that would change something and are not followed, with their values.
#[cfg(feature = "compute")]
pub(crate) fn not_followed(table: &[Key], values: &Map<String, Value>) -> Vec<(&'static str, Value)> {
    let told = table.iter().filter_map(|Key { name, treatment }| match treatment {
        Treatment::Told { harmless } => {
            let value = values.get(*name).filter(|value| !harmless(value))?;
            Some((*name, value.clone()))
        }
        _ => None,
    });
    told.collect()
}
