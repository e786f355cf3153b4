//! Writes checkpoint directories, each as a whole or not at all.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Result, ensure};
use fusion_core::Error;
use fusion_core::atomic::write_directory_atomically;
use fusion_core::checkpoint::Progress;

use crate::problems::{Remedy, mendable};
use crate::source::content;
use crate::{Interrupted, Stoppable, Watch};

/// Checks whether a checkpoint made from `inputs` may be written to `output`: either nothing is there, or
/// another checkpoint that is to be replaced.
pub fn check_replaceable(output: &Path, overwrite: bool, inputs: &[&Path]) -> Result<()> {
    if !replaceable(output, overwrite, ("config.json", "checkpoint"))? {
        return Ok(());
    }
    let place = output.display();
    let canonical = |path: &Path| fs::canonicalize(content(path).ok()?).ok();
    let same = |input: &&Path| canonical(input) == canonical(output);
    ensure!(!inputs.iter().any(same), "{place} is what is to be read, so it is not overwritten");
    Ok(())
}

/// Checks the same for a tokenizer.
pub fn check_replaceable_tokenizer(output: &Path, overwrite: bool) -> Result<()> {
    replaceable(output, overwrite, ("tokenizer.json", "tokenizer")).map(drop)
}

/// Whether something is there, of the kind that a file marks, and may be replaced.
fn replaceable(output: &Path, overwrite: bool, (mark, what): (&str, &str)) -> Result<bool> {
    let Ok(mut entries) = fs::read_dir(output) else { return Ok(false) };
    if entries.next().is_none() {
        return Ok(false);
    }
    let place = output.display();
    ensure!(overwrite, mendable(format!("{place} exists and is not empty"), Remedy::Overwrite));
    ensure!(output.join(mark).is_file(), "{place} holds no {what}, so it is not overwritten");
    Ok(true)
}

/// Writes a whole directory or nothing. `fill` reports every byte of `size`; `name` labels the progress. If
/// it is stopped or fails, nothing is left behind, and the error says that `what` was not written.
pub fn write_directory(
    output: &Path,
    (name, what): (&str, &str),
    size: u64,
    watch: &dyn Watch,
    fill: impl FnOnce(&Path, &Progress<'_>) -> Result<()>,
) -> Result<()> {
    let progress = watch.bytes(name, size);
    let wrote = |count| {
        progress(count);
        if watch.wants_stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let _stoppable = Stoppable::new(watch);
    let written = write_directory_atomically(output, |directory| fill(directory, &wrote));
    written.map_err(|error: anyhow::Error| match error.downcast_ref() {
        Some(Error::Stopped) => {
            let left = format!("nothing was written to {}", output.display());
            Interrupted { left: Some(left), resumes: false }.into()
        }
        _ => error.context(format!("{what} was not written to {}", output.display())),
    })
}
