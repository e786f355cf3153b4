//! JSON files.

use std::path::Path;

use anyhow::Result;
use fusion_core::atomic::write_file_atomically;
use serde::Serialize;

/// Writes a value for people to read, and a newline.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = format!("{}\n", serde_json::to_string_pretty(value)?);
    Ok(write_file_atomically(path, text.as_bytes())?)
}
