//! One process at a time for each stage.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A stage is one process's as long as this lives: another may replace what this one is writing. Different stages of a
/// run may have different processes.
pub struct StageLock {
    _file: File,
}

impl StageLock {
    pub fn take(output: &Path, stage: &str) -> Result<Self> {
        fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
        // Beside the stage's directory, which may be removed; stages' names do not begin with a dot.
        let path = output.join(format!(".{stage}.lock"));
        let opened = File::options().write(true).create(true).truncate(false).open(&path);
        let file = opened.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                bail!("another process is at work on stage {stage:?} in {}", output.display())
            }
            // Not all file systems have locks. That must not keep anybody from running there.
            Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
            _ => Ok(StageLock { _file: file }),
        }
    }
}
