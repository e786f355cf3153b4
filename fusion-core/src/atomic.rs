//! Files and directories that appear in full or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with, statvfs};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::{Error, Result};

/// Lets `write` fill a temporary directory next to `path`, syncs it to disk and renames it to `path`. An existing
/// directory is replaced as a whole. Where the file system can exchange two names, one of the two directories exists
/// at every moment; elsewhere the old one is moved aside first. If `write` fails, `path` is left as it was.
///
/// Removes temporary directories that a killed process left behind for the same `path`.
pub fn write_directory_atomically<E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let target = Target::new(path)?;
    let existing = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => true,
        Ok(_) => {
            let error = io::Error::new(io::ErrorKind::NotADirectory, "it exists and is not a directory");
            return Err(Error::io("replace", path)(error).into());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(Error::io("look at", path)(error).into()),
    };
    target.remove_leftovers();
    let temporary = Temporary { path: target.temporary() };
    fs::create_dir(&temporary.path).map_err(Error::io("create", &temporary.path))?;
    // Tells the clean-up of other processes that this directory is in use. Not all file systems can lock; the process
    // id in the name is the first line of defence.
    let lock = File::open(&temporary.path).map_err(Error::io("open", &temporary.path))?;
    let _ = lock.try_lock();
    write(&temporary.path)?;
    sync_tree(&temporary.path)?;
    if existing {
        exchange(&temporary.path, path, &target)?;
    } else {
        fs::rename(&temporary.path, path).map_err(Error::io("create", path))?;
    }
    sync(&target.parent)?;
    Ok(())
}

/// Writes a file under a temporary name next to `path`, syncs it to disk and renames it to `path`, replacing an
/// existing file. Creates the directory if it does not exist.
pub fn write_file_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = PartialFile::create(path)?;
    partial.write_at(bytes, 0)?;
    partial.commit()
}

/// A file under a temporary name next to its final place. Removed on drop unless it was committed.
pub(crate) struct PartialFile {
    path: PathBuf,
    target: Target,
    temporary: Temporary,
    file: File,
}

impl PartialFile {
    /// Creates an empty file, and its directory if that does not exist.
    pub fn create(path: &Path) -> Result<Self> {
        let target = Target::new(path)?;
        target.remove_leftovers();
        let temporary = Temporary { path: target.temporary() };
        let file = File::create_new(&temporary.path).map_err(Error::io("create", &temporary.path))?;
        Ok(PartialFile { path: path.into(), target, temporary, file })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(Error::io("write", &self.path))
    }

    /// Sets the length of the file, and reserves space for it where the file system can.
    pub fn reserve(&self, size: u64) -> Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(()),
            // Other processes may have taken the space since it was checked, or a quota may apply.
            Err(Errno::NOSPC | Errno::DQUOT) => {
                check_space(&self.path, size)?;
                Err(Error::io("reserve space for", &self.path)(Errno::NOSPC.into()))
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.file.set_len(size).map_err(Error::io("write", &self.path))
            }
            Err(error) => Err(Error::io("reserve space for", &self.path)(error.into())),
        }
    }

    /// Syncs the file to disk and renames it to its final name, replacing an existing file.
    pub fn commit(self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("sync", &self.path))?;
        fs::rename(&self.temporary.path, &self.path).map_err(Error::io("replace", &self.path))?;
        sync(&self.target.parent)
    }
}

/// Fails if the file system that holds a path reports less room than `needed` bytes.
pub(crate) fn check_space(path: &Path, needed: u64) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match free_space(directory) {
        Some(available) if available < needed => Err(Error::NoSpace { path: path.into(), needed, available }),
        _ => Ok(()),
    }
}

/// The free space, in bytes, of the file system that holds an existing path. `None` if it does not report any: file
/// systems that are not on a disk may claim to have no blocks at all.
pub fn free_space(path: &Path) -> Option<u64> {
    let system = statvfs(path).ok().filter(|system| system.f_blocks > 0)?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

/// Where something will be written.
struct Target {
    parent: PathBuf,
    name: OsString,
}

impl Target {
    fn new(path: &Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| {
            Error::io("write", path)(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path does not end in a name",
            ))
        })?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
        Ok(Target { parent, name: name.to_os_string() })
    }

    /// A name that no other thread and no running process uses: `.NAME.PID-COUNTER.partial`.
    fn temporary(&self) -> PathBuf {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(format!(".{}-{count}.partial", std::process::id()));
        self.parent.join(name)
    }

    /// Removes what killed processes left behind. A failure here must not prevent writing.
    fn remove_leftovers(&self) {
        let Some(name) = self.name.to_str() else { return };
        let Ok(entries) = fs::read_dir(&self.parent) else { return };
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let process = file_name.to_str().and_then(|file_name| process_of(file_name, name));
            if process.is_some_and(is_dead)
                && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
            {
                remove(&entry.path());
            }
        }
    }
}

/// The process in the temporary name of a target.
fn process_of(temporary: &str, target: &str) -> Option<i32> {
    let middle =
        temporary.strip_prefix('.')?.strip_prefix(target)?.strip_prefix('.')?.strip_suffix(".partial")?;
    let (process, count) = middle.split_once('-')?;
    count.parse::<u64>().ok()?;
    process.parse().ok()
}

fn is_dead(process: i32) -> bool {
    process > 0
        && Pid::from_raw(process).is_some_and(|process| test_kill_process(process) == Err(Errno::SRCH))
}

/// Removed on drop, if it still exists under this name.
struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    let _ = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
}

/// Swaps a temporary directory with an existing one, which then has the temporary name.
fn exchange(temporary: &Path, path: &Path, target: &Target) -> Result<()> {
    if renameat_with(CWD, temporary, CWD, path, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    let aside = Temporary { path: target.temporary() };
    fs::rename(path, &aside.path).map_err(Error::io("move aside", path))?;
    fs::rename(temporary, path).map_err(|error| {
        let _ = fs::rename(&aside.path, path);
        Error::io("replace", path)(error)
    })
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("sync", path))
}

fn sync_tree(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let entry = entry.map_err(Error::io("read", directory))?;
        let kind = entry.file_type().map_err(Error::io("look at", entry.path()))?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            sync(&entry.path())?;
        }
    }
    sync(directory)
}
