//! JSON files.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic::write_file_atomically;
use crate::{Error, Result};

/// Reads a value.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(Error::json(path))
}

/// Writes a value, indented, with a newline at its end. The file appears in full or not at all.
pub fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(Error::json(path))?;
    write_file_atomically(path, format!("{text}\n").as_bytes())
}
