//! JSON files.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

/// Writes a value in readable form, followed by a newline.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    Ok(fusion_core::json::write(path, value)?)
}
