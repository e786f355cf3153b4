//! Writes checkpoint directories, each as a whole or not at all.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Result, ensure};
use fusion_core::Error;
use fusion_core::atomic::{Place, write_directory_atomically};
use fusion_core::checkpoint::Progress;

use crate::problems::{Remedy, mendable};
use crate::source::{content, tokenizer_files};
use crate::{Interrupted, Stoppable, Watch};

/// What a checkpoint has in any case, and perhaps. A conflict over one of these names shows before the work.
const CHECKPOINT: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "lineage.json",
    "model.safetensors",
    "model.safetensors.index.json",
];

/// Checks, before the work, whether a checkpoint made from `inputs` may be written to `output`: nothing is there, or a
/// checkpoint that this program wrote, which is to be replaced. Files of others in it are kept.
pub fn check_replaceable(output: &Path, overwrite: bool, inputs: &[&Path]) -> Result<()> {
    let names = CHECKPOINT.into_iter().chain(tokenizer_files());
    check_place(output, overwrite, inputs, "checkpoint", &names.collect::<Vec<_>>())
}

/// Checks the same for a tokenizer.
pub fn check_replaceable_tokenizer(output: &Path, overwrite: bool) -> Result<()> {
    check_place(output, overwrite, &[], "tokenizer", &tokenizer_files().collect::<Vec<_>>())
}

/// The first of the names is that of a file which makes a directory what it is.
fn check_place(output: &Path, overwrite: bool, inputs: &[&Path], what: &str, names: &[&str]) -> Result<()> {
    let place = Place::of(output)?;
    let shown = output.display();
    if !place.is_free()? {
        let same = inputs.iter().any(|input| content(input).is_ok_and(|input| place.is(&input)));
        ensure!(!same, "{shown} is what is to be read, so it is not overwritten");
        ensure!(overwrite, mendable(format!("{shown} exists and is not empty"), Remedy::Overwrite));
        let mark = names.first().copied().unwrap_or_default();
        let is_there = place.path().join(mark).exists();
        ensure!(is_there || place.wrote(mark)?, "{shown} holds no {what}, so it is not overwritten");
        let others = "that this program did not write, so it is not overwritten";
        ensure!(place.wrote(mark)?, "{shown} holds a {what} {others}");
    }
    Ok(place.check(names)?)
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
