//! Files and directories that appear in full or not at all, and replace only what this program wrote.

mod move_in;
mod place;
mod record;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Access, CWD, FallocateFlags, RenameFlags, access, fallocate, renameat_with, statvfs};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use self::place::Contents;
use self::record::Record;
use crate::{Error, Result};

pub use self::place::{Place, claim, claim_new, is_left_over, remove_written, write_own_file};
pub use self::record::RECORD;

/// Temporary directories within a directory are called `.deep-fusion.PID-COUNTER.partial`.
const OWN_NAME: &str = "deep-fusion";

/// Lets `write` fill a temporary directory, syncs it to disk and puts its content at `path`.
///
/// - Where there is nothing, the temporary directory gets the name.
/// - A directory in which this program wrote everything is replaced as a whole. Where the file system can exchange two
///   names, one of the two directories exists at every moment; elsewhere the old one is moved aside first.
/// - Into any other directory (one that is empty or hidden files lie in, a mount point, the current directory) files are
///   moved one by one, `config.json` last. What this program wrote there before is replaced, everything else is kept.
///
/// If `write` fails, or a file that is in the way was not written by this program or was changed since, `path` is left
/// as it was. Removes temporary directories that a killed process left behind for the same `path`.
///
/// # Errors
/// Those of `write` and of [`Place::of`]; [`Error::Occupied`], [`Error::NotOurs`], [`Error::Changed`].
pub fn write_directory_atomically<E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let place = Place::of(path)?;
    let beside = Target::of(place.path());
    let within = Target { parent: place.path().into(), name: OWN_NAME.into() };
    for target in beside.iter().chain([&within]) {
        target.remove_leftovers();
    }
    let Contents { record: earlier, others } = replaceable(&place)?;
    let moves_in = place.exists() && (others || earlier.is_none() || must_stay(place.path()));
    let target = beside.as_ref().filter(|_| !moves_in).unwrap_or(&within);
    fs::create_dir_all(&target.parent).map_err(Error::io("create", &target.parent))?;
    let temporary = Temporary { path: target.temporary() };
    fs::create_dir(&temporary.path).map_err(Error::io("create", &temporary.path))?;
    // Tells the clean-up of other processes that this directory is in use. Not all file systems can lock; the process
    // id in the name is the first line of defence.
    let lock = File::open(&temporary.path).map_err(Error::io("open", &temporary.path))?;
    let _ = lock.try_lock();
    write(&temporary.path)?;
    let record = Record::of(&temporary.path)?;
    if !record.is_empty() {
        record.write(&temporary.path)?;
    }
    sync_tree(&temporary.path)?;
    Ok(put(&temporary.path, &record, place.path(), target)?)
}

/// Puts a finished directory at its place.
fn put(finished: &Path, record: &Record, path: &Path, target: &Target) -> Result<()> {
    // Things may have changed since the work began.
    if fs::symlink_metadata(path).is_err() {
        fs::rename(finished, path).map_err(Error::io("create", path))?;
        return sync(&target.parent);
    }
    let Contents { record: earlier, others } = replaceable(&Place::of(path)?)?;
    if others || earlier.is_none() || target.parent == path {
        return move_in::move_in(finished, record, path, &earlier.unwrap_or_default());
    }
    let permissions = fs::metadata(path).map_err(Error::io("look at", path))?.permissions();
    fs::set_permissions(finished, permissions).map_err(Error::io("write", finished))?;
    exchange(finished, path, target)?;
    sync(&target.parent)
}

/// What is in a directory, if it may be replaced: this program wrote something there that nobody changed, or it is free.
fn replaceable(place: &Place) -> Result<Contents> {
    loop {
        let identity = identity(place.path());
        let contents = place.contents()?;
        let unchanged = contents.record.iter().try_for_each(|record| record.check_unchanged(place.path()));
        match unchanged {
            // Another process has just replaced it.
            Err(_) if identity != self::identity(place.path()) => {}
            Err(error) => return Err(error),
            Ok(()) if contents.record.is_none() && !place.is_free()? => {
                return Err(Error::Occupied { path: place.path().into() });
            }
            Ok(()) => return Ok(contents),
        }
    }
}

/// Whether a directory cannot be given another name: it is mounted there, the program stands in it, or its parent
/// cannot be written to.
fn must_stay(path: &Path) -> bool {
    let here = std::env::current_dir().ok().and_then(|here| identity(&here));
    let parent_allows = path.parent().is_some_and(|parent| access(parent, Access::WRITE_OK).is_ok());
    !parent_allows || is_mount_point(path) || here == identity(path)
}

#[cfg(target_os = "linux")]
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        || is_another_device(path)
}

#[cfg(not(target_os = "linux"))]
use is_another_device as is_mount_point;

/// Whether a directory is on another file system than its parent.
fn is_another_device(path: &Path) -> bool {
    let device = |path: &Path| identity(path).map(|(device, _)| device);
    path.parent().is_none_or(|parent| device(parent) != device(path))
}

/// What tells a file or directory from all others: its device, and its number there.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Writes a file under a temporary name next to `path`, syncs it to disk and renames it to `path`, replacing an
/// existing file; where there is a link to a file, that file. Creates the directory if it does not exist.
pub fn write_file_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = PartialFile::create(path)?;
    partial.write_at(bytes, 0)?;
    partial.commit()
}

/// A file under a temporary name next to its final place, for writing piece by piece. Removed on drop unless it was
/// committed.
pub struct PartialFile {
    path: PathBuf,
    target: Target,
    temporary: Temporary,
    file: File,
}

impl PartialFile {
    /// Creates an empty file, and its directory if that does not exist.
    pub fn create(path: &Path) -> Result<Self> {
        let path = &*regular_file(path)?;
        let target = Target::of_file(path)?;
        fs::create_dir_all(&target.parent).map_err(Error::io("create", &target.parent))?;
        target.remove_leftovers();
        let temporary = Temporary { path: target.temporary() };
        let file = File::create_new(&temporary.path).map_err(Error::io("create", &temporary.path))?;
        Ok(PartialFile { path: path.into(), target, temporary, file })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes bytes at an offset from the start of the file.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(Error::io("write", &self.path))
    }

    /// Sets the length of the file, and reserves space for it where the file system can.
    pub(crate) fn reserve(&self, size: u64) -> Result<()> {
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

/// Where a file of that name goes: a link to a file stands for that file.
fn regular_file(path: &Path) -> Result<Cow<'_, Path>> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(Error::NoFile { path: path.into() }),
        Ok(_) if path.is_symlink() => {
            fs::canonicalize(path).map(Cow::Owned).map_err(Error::io("look at", path))
        }
        Ok(_) => Ok(path.into()),
        Err(_) => place::check_link(path).map(|()| path.into()),
    }
}

/// Checks, before the work, that [`write_directory_atomically`] can write a directory.
///
/// # Errors
/// Those of [`Place::of`]; [`Error::Occupied`], [`Error::Changed`].
pub fn check_directory(path: &Path) -> Result<()> {
    replaceable(&Place::of(path)?).map(drop)
}

/// Checks, before the work, that a file can be written.
///
/// # Errors
/// [`Error::NoFile`] and [`Error::BrokenLink`], and those of [`Place::of`] for its directory.
pub fn check_file(path: &Path) -> Result<()> {
    Target::of_file(&regular_file(path)?).map(drop)
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
    /// `None` if the path does not end in a name.
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_os_string();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Some(Target { parent: parent.unwrap_or(Path::new(".")).into(), name })
    }

    /// Fails if the file's directory is not there and cannot be created.
    fn of_file(path: &Path) -> Result<Self> {
        let target = Target::of(path).ok_or_else(|| Error::NoName { path: path.into() })?;
        Place::of(&target.parent)?;
        Ok(target)
    }

    /// The name in temporary names, which must not get too long for the file system.
    fn short_name(&self) -> &OsStr {
        const LONGEST: usize = 200;
        let text = self.name.to_str().filter(|name| name.len() > LONGEST);
        text.map_or(&self.name, |name| OsStr::new(&name[..name.floor_char_boundary(LONGEST)]))
    }

    /// A name that no other thread and no running process uses: `.NAME.PID-COUNTER.partial`.
    fn temporary(&self) -> PathBuf {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut name = OsString::from(".");
        name.push(self.short_name());
        name.push(format!(".{}-{count}.partial", std::process::id()));
        self.parent.join(name)
    }

    /// Removes what killed processes left behind. A failure here must not prevent writing.
    fn remove_leftovers(&self) {
        let Some(name) = self.short_name().to_str() else { return };
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
