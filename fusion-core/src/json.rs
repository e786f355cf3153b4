//! JSON files.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic::write_file_atomically;
use crate::{Error, Mistaken, Result};

/// Reads a value.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    from_slice(&text, path)
}

/// Reads a value from a file's content. A byte-order mark does not count.
pub fn from_slice<T: DeserializeOwned>(text: &[u8], path: &Path) -> Result<T> {
    if let Some(what) = Mistaken::of(text) {
        return Err(Error::Mistaken { path: path.into(), what });
    }
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    serde_json::from_slice(text).map_err(Error::json(path))
}

/// Writes a value, indented, with a newline at its end. The file appears in full or not at all.
pub fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(Error::json(path))?;
    write_file_atomically(path, format!("{text}\n").as_bytes())
}
