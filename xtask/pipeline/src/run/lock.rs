//! Allows only one process at a time to run each stage.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Reserves a stage for one process until dropped: another might replace what this one is writing. Different
/// processes may run different stages of a run.
pub struct StageLock {
    _file: File,
}

impl StageLock {
    /// Reserves a stage of the run in `output`; fails if another process has reserved it.
    pub fn take(output: &Path, stage: &str) -> Result<Self> {
        let lock = StageLock::take_if_free(output, stage)?;
        lock.with_context(|| format!("another process is at work on stage {stage:?} in {}", output.display()))
    }

    /// Reserves a stage, unless another process has reserved it. The reservation ends with the process, however
    /// that ends.
    pub fn take_if_free(output: &Path, stage: &str) -> Result<Option<Self>> {
        fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
        let path = path(output, stage);
        let opened = File::options().write(true).create(true).truncate(false).open(&path);
        let file = opened.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(None),
            // Not all file systems support locks. That must not prevent running there.
            Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
            _ => Ok(Some(StageLock { _file: file })),
        }
    }

    /// Whether a process is at work on a stage, as far as this file system tells.
    pub fn is_taken(output: &Path, stage: &str) -> bool {
        let opened = File::options().write(true).open(path(output, stage));
        opened.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }
}

/// Next to the stage's directory, which may be removed; stage names do not begin with a dot.
fn path(output: &Path, stage: &str) -> PathBuf {
    output.join(format!(".{stage}.lock"))
}
