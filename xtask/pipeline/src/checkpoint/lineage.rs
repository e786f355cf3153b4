//! The lineage of a checkpoint's weights.

use anyhow::{Context, Result};
use fusion_core::checkpoint::Checkpoint;
use fusion_core::lineage::{History, Lineage};

use crate::Warning;

/// The recorded history of a checkpoint's weights. Warns if it is about other weights; `model` names the
/// model in the warning if there are several.
pub fn known_lineage(
    checkpoint: &Checkpoint,
    model: Option<&str>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Lineage>> {
    let history = checkpoint.history()?;
    if history == History::OfOtherWeights {
        warnings.push(Warning::OtherWeights { model: model.map(str::to_owned) });
    }
    Ok(history.known())
}

/// The lineage that training from a checkpoint extends, with the hash of its weights.
pub fn lineage_to_continue(checkpoint: &Checkpoint) -> Result<Lineage> {
    let blake3 = Some(checkpoint.blake3()?);
    let history = checkpoint.history().with_context(|| checkpoint.directory().display().to_string())?;
    Ok(Lineage { blake3, ..history.known().unwrap_or_default() })
}
