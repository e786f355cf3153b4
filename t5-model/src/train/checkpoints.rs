//! Where a training run keeps its checkpoints, and the lock on its directory.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fusion_core::Error;
use fusion_core::atomic::{RECORD, is_left_over, remove_written};

use super::error::{Result, TrainError};

/// The file in a run's directory that a process locks.
pub(super) const LOCK: &str = "lock";
/// Behind the name of a checkpoint that is being removed.
const DELETED: &str = ".deleted";

/// Where a training run keeps its checkpoints.
pub enum Checkpoints {
    /// Nowhere.
    None,
    /// In this directory, which only ever holds the newest.
    Newest(PathBuf),
    /// In a directory per step, such as `step-00000500`.
    Steps {
        /// The parent of these directories.
        folder: PathBuf,
        /// How many of the newest are kept.
        keep: usize,
    },
}

/// Models on the way that a training run keeps, apart from its checkpoints.
pub struct Kept {
    pub(super) checkpoints: Checkpoints,
    pub(super) steps: Vec<u64>,
    pub(super) with_optimizer: bool,
}

/// The folder of a run's directory that holds them.
pub(super) const KEPT: &str = "kept";

/// Where the run in a directory keeps the model of a step: see [`Settings::keep_steps`](super::Settings::keep_steps).
pub fn kept_model(run: &Path, step: u64) -> PathBuf {
    run.join(KEPT).join(name(step))
}

fn name(step: u64) -> String {
    format!("step-{step:08}")
}

impl Kept {
    /// The models of these steps, if there are any.
    pub(super) fn in_run(run: &Path, steps: &[u64], with_optimizer: bool) -> Option<Self> {
        if steps.is_empty() {
            return None;
        }
        let checkpoints = Checkpoints::Steps { folder: run.join(KEPT), keep: usize::MAX };
        Some(Kept { checkpoints, steps: steps.to_vec(), with_optimizer })
    }

    /// Where the model of a step is kept, if it is.
    pub(super) fn path(&self, step: u64) -> Option<PathBuf> {
        self.checkpoints.path(step).filter(|_| self.steps.contains(&step))
    }
}

impl Checkpoints {
    /// Creates a folder of checkpoints by step, and removes checkpoints that a killed process left half written or half
    /// deleted.
    pub(super) fn tidy(&self) -> Result<()> {
        let Checkpoints::Steps { folder, .. } = self else { return Ok(()) };
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        for (name, path) in entries(folder)? {
            if let Some(step) = name.strip_prefix('.').and_then(|name| name.strip_suffix(DELETED)) {
                remove(&path, &folder.join(step))?;
            } else if name.starts_with(".step-") {
                fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// The directory for the checkpoint of a step, if checkpoints are kept.
    pub(super) fn path(&self, step: u64) -> Option<PathBuf> {
        match self {
            Checkpoints::None => None,
            Checkpoints::Newest(path) => Some(path.clone()),
            Checkpoints::Steps { folder, .. } => Some(folder.join(name(step))),
        }
    }

    /// The newest checkpoint, if there is one.
    pub(super) fn newest(&self) -> Result<Option<PathBuf>> {
        match self {
            Checkpoints::None => Ok(None),
            Checkpoints::Newest(path) => Ok((path.exists() && !is_left_over(path)).then(|| path.clone())),
            Checkpoints::Steps { .. } => Ok(self.steps()?.last().and_then(|&step| self.path(step))),
        }
    }

    /// The steps that have their own checkpoint, in order.
    fn steps(&self) -> Result<Vec<u64>> {
        let Checkpoints::Steps { folder, .. } = self else { return Ok(Vec::new()) };
        let step = |(name, path): (String, PathBuf)| {
            let step = name.strip_prefix("step-")?.parse().ok()?;
            // What is left of one that was removed holds only files of others.
            (Some(&path) == self.path(step).as_ref() && !is_left_over(&path)).then_some(step)
        };
        let mut steps: Vec<u64> = entries(folder)?.into_iter().filter_map(step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Removes checkpoints beyond the number to keep, oldest first. Each disappears atomically because it is
    /// renamed first. Files of others in them are kept.
    pub(super) fn prune(&self) -> Result<()> {
        let Checkpoints::Steps { folder, keep } = self else { return Ok(()) };
        let steps = self.steps()?;
        for &step in steps.iter().take(steps.len().saturating_sub(*keep)) {
            let path = folder.join(name(step));
            let aside = folder.join(format!(".{}{DELETED}", name(step)));
            fs::rename(&path, &aside).map_err(Error::io("remove", &path))?;
            remove(&aside, &path)?;
        }
        Ok(())
    }

    /// Turns an error from reading a checkpoint or a finished model into advice.
    pub(super) fn damaged(&self, checkpoint: &Path, error: TrainError) -> TrainError {
        if matches!(error, TrainError::Version { .. }) {
            return error;
        }
        let others = |step: &u64| self.path(*step).as_deref() != Some(checkpoint);
        let earlier = self.steps().unwrap_or_default().into_iter().rfind(others);
        let earlier = earlier.map_or("the beginning".into(), |step| format!("step {step}"));
        TrainError::Damaged { checkpoint: checkpoint.into(), problem: error.to_string(), earlier }
    }
}

/// Removes a checkpoint that was moved aside; if others' files are in it, these return to where it was.
fn remove(aside: &Path, path: &Path) -> Result<()> {
    if !aside.join(RECORD).exists() {
        // From before there were records.
        fs::remove_dir_all(aside).map_err(Error::io("remove", aside))?;
    } else if remove_written(aside)? {
        fs::rename(aside, path).map_err(Error::io("remove", path))?;
    }
    Ok(())
}

/// Creates a directory and locks it until the file is dropped.
pub(super) fn lock(directory: &Path) -> Result<File> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let path = directory.join(LOCK);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(Error::io("open", &path))?;
    let mut locked = file.try_lock();
    // A process being started by another thread holds copies of all open files until it runs its program.
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
        // Some network file systems do not support locks. That should not prevent training there.
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
        // Names that are not valid UTF-8 were not made by this program.
        found.extend(entry.file_name().into_string().ok().map(|name| (name, entry.path())));
    }
    Ok(found)
}
