//! Writing directories while people wait.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Result;
use fusion_core::{Error, Progress, write_directory_atomically};

use crate::interrupt::{self, Interrupted};
use crate::progress::WritingProgress;

/// Writes a directory, all of it or nothing. `fill` tells of every byte of `size`; `name` is what the progress is called. Ctrl-C
/// leaves nothing behind; `what` was not written then, or if something fails.
pub fn write_directory(
    output: &Path,
    (name, what): (&str, &str),
    size: u64,
    fill: impl FnOnce(&Path, &Progress<'_>) -> Result<()>,
) -> Result<()> {
    let progress = WritingProgress::new(name, size);
    let wrote = |count| {
        progress.wrote(count);
        if interrupt::wanted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let _graceful = interrupt::let_finish();
    let written = write_directory_atomically(output, |directory| fill(directory, &wrote));
    written.map_err(|error: anyhow::Error| match error.downcast_ref() {
        Some(Error::Stopped) => {
            Interrupted { advice: format!("nothing was written to {}", output.display()) }.into()
        }
        _ => error.context(format!("{what} was not written to {}", output.display())),
    })
}
