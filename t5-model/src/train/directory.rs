//! A run's directory: its lock, and which checkpoints it holds.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fusion_core::Error;

use super::error::{Result, TrainError};

/// Locked as long as it lives.
pub(super) struct RunDirectory {
    path: PathBuf,
    _lock: File,
}

impl RunDirectory {
    /// Creates and locks the directory, and removes checkpoints that a killed process left half written or half
    /// deleted.
    pub fn open(path: &Path) -> Result<Self> {
        let directory = RunDirectory { path: path.into(), _lock: lock(path)? };
        let checkpoints = directory.checkpoints();
        fs::create_dir_all(&checkpoints).map_err(Error::io("create", &checkpoints))?;
        for (name, path) in entries(&checkpoints)? {
            if name.starts_with(".step-") {
                fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(directory)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step:08}"))
    }

    /// The steps that have a checkpoint, in order.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let entries = entries(&self.checkpoints())?;
        let step = |(_, path): &(String, PathBuf)| {
            let step = path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()?;
            (*path == self.checkpoint(step)).then_some(step)
        };
        let mut steps: Vec<u64> = entries.iter().filter_map(step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Removes all checkpoints but the newest `keep`. Each disappears at once: it is renamed first.
    pub fn prune(&self, keep: usize) -> Result<()> {
        let steps = self.steps()?;
        for &step in steps.iter().take(steps.len().saturating_sub(keep)) {
            let path = self.checkpoint(step);
            let aside = self.checkpoints().join(format!(".step-{step:08}.deleted"));
            fs::rename(&path, &aside).map_err(Error::io("remove", &path))?;
            fs::remove_dir_all(&aside).map_err(Error::io("remove", &aside))?;
        }
        Ok(())
    }
}

fn lock(directory: &Path) -> Result<File> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let path = directory.join("lock");
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(Error::io("open", &path))?;
    let mut locked = file.try_lock();
    // A process that another thread is starting holds copies of all open files until it has begun.
    for _ in 0..20 {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::Locked { directory: directory.into() }),
        // Some network file systems have no locks. That must not keep anybody from training there.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error).into()),
    }
}

/// Names and paths of a directory's entries.
fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |error| Error::io("read", directory)(error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Names of this program's are plain; others are none of its business.
        found.extend(entry.file_name().into_string().ok().map(|name| (name, entry.path())));
    }
    Ok(found)
}
