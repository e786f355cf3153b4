//! Where a directory is going to be written, and what is there already.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, access};

use super::record::{RECORD, Record};
use super::write_file_atomically;
use crate::{Error, Result};

/// A directory to write, without links and dots: it exists and can be written to, or it can be created.
#[derive(Clone, Debug)]
pub struct Place {
    path: PathBuf,
    exists: bool,
}

/// What is in an existing directory.
pub(super) struct Contents {
    /// What this program wrote, if it ever did.
    pub record: Option<Record>,
    /// Whether there is anything else.
    pub others: bool,
}

impl Place {
    /// Finds the place that a path names. A link to a directory names that directory.
    ///
    /// # Errors
    /// Whatever would keep a directory from being written there: a file in its place or above it, a link that leads
    /// nowhere, missing permissions.
    pub fn of(path: &Path) -> Result<Self> {
        let look = |error| Error::io("look at", path)(error);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let path = fs::canonicalize(path).map_err(look)?;
                check_writable(&path)?;
                Ok(Place { path, exists: true })
            }
            Ok(_) => Err(Error::NoDirectory { path: path.into() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Place::new(path),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let is_file = |path: &&Path| fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir());
                let file = path.ancestors().find(is_file).unwrap_or(path);
                Err(Error::NoDirectory { path: file.into() })
            }
            Err(error) => Err(look(error)),
        }
    }

    /// A place at which there is nothing.
    fn new(path: &Path) -> Result<Self> {
        check_link(path)?;
        // A slash or a dot at the end does not count as a component.
        let mut missing: Vec<&OsStr> = Vec::new();
        let mut existing = path;
        while !existing.exists() {
            check_link(existing)?;
            match (existing.components().next_back(), existing.parent()) {
                (Some(Component::Normal(name)), Some(parent)) => {
                    missing.push(name);
                    existing = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                }
                _ => return Err(Error::NoName { path: path.into() }),
            }
        }
        if !existing.is_dir() {
            return Err(Error::NoDirectory { path: existing.into() });
        }
        let existing = fs::canonicalize(existing).map_err(Error::io("look at", existing))?;
        check_writable(&existing)?;
        let path = missing.into_iter().rev().fold(existing, |path, name| path.join(name));
        Ok(Place { path, exists: false })
    }

    /// The directory, without links and dots.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something is there already.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Whether there is nothing, or nothing but what is hidden or made by the file system: a volume's `lost+found`, a
    /// repository's `.git`. Such things are kept.
    pub fn is_free(&self) -> Result<bool> {
        if !self.exists {
            return Ok(true);
        }
        let counts = |name: &OsStr| !name.as_encoded_bytes().starts_with(b".") && name != "lost+found";
        Ok(Record::read(&self.path)?.is_none() && !names(&self.path)?.iter().any(|name| counts(name)))
    }

    /// Whether this program wrote a file of this name there.
    pub fn wrote(&self, name: &str) -> Result<bool> {
        Ok(self.exists && Record::read(&self.path)?.is_some_and(|record| record.contains(name)))
    }

    /// Whether a directory is this one, under whatever name.
    pub fn is(&self, other: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        self.exists && identity(&self.path) == identity(other)
    }

    /// Checks that files of these names can be written: each is one that this program wrote, or there is none.
    ///
    /// # Errors
    /// [`Error::NotOurs`]; [`Error::Changed`] if anything was changed after this program wrote it.
    pub fn check(&self, names: &[&str]) -> Result<()> {
        if !self.exists {
            return Ok(());
        }
        let record = Record::read(&self.path)?.unwrap_or_default();
        record.check_unchanged(&self.path)?;
        check_free(&self.path, &record, names.iter().copied())
    }

    pub(super) fn contents(&self) -> Result<Contents> {
        if !self.exists {
            return Ok(Contents { record: None, others: false });
        }
        let record = Record::read(&self.path)?;
        let others = record.clone().unwrap_or_default().lacks_any(&self.path, &self.path)?;
        Ok(Contents { record, others })
    }
}

/// Reserves names in a directory, which is created if it does not exist: for files that change over time, and for
/// directories. From then on this program may replace them.
///
/// # Errors
/// [`Error::NotOurs`] if anything of such a name is there that this program did not write, [`Error::Changed`], and those
/// of [`Place::of`].
pub fn claim(directory: &Path, names: &[&str]) -> Result<()> {
    let place = Place::of(directory)?;
    fs::create_dir_all(place.path()).map_err(Error::io("create", directory))?;
    change_record(place.path(), |record| {
        check_ours(directory, record, names)?;
        Ok(names.iter().filter(|name| record.claim(name)).count() > 0)
    })
}

/// Writes a file as a whole into a directory, which is created if it does not exist. An earlier one is replaced if this
/// program wrote it.
///
/// # Errors
/// Those of [`claim`], and if the file cannot be written.
pub fn write_own_file(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    claim(directory, &[name])?;
    change_record(directory, |record| {
        check_ours(directory, record, &[name])?;
        record.forget_hash(name);
        Ok(true)
    })?;
    write_file_atomically(&directory.join(name), bytes)?;
    change_record(directory, |record| record.update(directory, name).map(|()| true))
}

fn check_ours(directory: &Path, record: &Record, names: &[&str]) -> Result<()> {
    check_free(directory, record, names.iter().copied())?;
    for name in names {
        if !record.is_unchanged(directory, name)? {
            return Err(Error::Changed { path: directory.join(name) });
        }
    }
    Ok(())
}

/// [`claim`] for files that this process has just created in an existing directory.
pub fn claim_new(directory: &Path, names: &[&str]) -> Result<()> {
    change_record(directory, |record| Ok(names.iter().filter(|name| record.claim(name)).count() > 0))
}

/// Changes a directory's record; `change` returns whether it did.
fn change_record(directory: &Path, change: impl FnOnce(&mut Record) -> Result<bool>) -> Result<()> {
    // Another process may claim names at the same time. Not all file systems can lock.
    let lock = File::open(directory).map_err(Error::io("open", directory))?;
    let _ = lock.lock();
    let mut record = Record::read(directory)?.unwrap_or_default();
    if change(&mut record)? { record.write(directory) } else { Ok(()) }
}

/// Removes what this program wrote into a directory, and the directory if nothing is left of it. What is not recorded,
/// or was changed since, is kept; returns whether there is such a thing. In a directory without a record, this does the
/// same for its subdirectories.
pub fn remove_written(directory: &Path) -> Result<bool> {
    let mut left = Record::default();
    let record = Record::read(directory)?;
    let recorded = record.is_some();
    let record = record.map_or_else(|| subdirectories(directory), Ok)?;
    for name in record.names() {
        let path = directory.join(name);
        if path.is_dir() && !path.is_symlink() {
            if remove_written(&path)? {
                left.claim(name);
            }
        } else if fs::symlink_metadata(&path).is_ok() && record.is_unchanged(directory, name)? {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        remove_empty_parents(directory, &path);
    }
    let path = directory.join(RECORD);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
        _ if fs::remove_dir(directory).is_ok() => Ok(false),
        // What is left lies in a directory of this program, which may write into it again.
        _ => (if recorded { left.write(directory) } else { Ok(()) }).map(|()| true),
    }
}

/// Whether nothing in a directory is this program's any more: what [`remove_written`] left.
pub fn is_left_over(directory: &Path) -> bool {
    Record::read(directory).is_ok_and(|record| record.is_some_and(|record| record.is_empty()))
}

fn subdirectories(directory: &Path) -> Result<Record> {
    let mut record = Record::default();
    for name in names(directory)? {
        let path = directory.join(&name);
        if let Some(name) = name.to_str().filter(|_| path.is_dir() && !path.is_symlink()) {
            record.claim(name);
        }
    }
    Ok(record)
}

/// Removes the directories between a file that is gone and `directory` that are empty.
pub(super) fn remove_empty_parents(directory: &Path, file: &Path) {
    let between = file.ancestors().skip(1).take_while(|parent| *parent != directory);
    // The first that is not empty ends it.
    let _ = between.map(fs::remove_dir).find(|removed| removed.is_err());
}

/// Fails if something that is not recorded is where files of these names go.
pub(super) fn check_free<'a>(
    directory: &Path,
    record: &Record,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    for name in names.into_iter().filter(|name| !record.contains(name)) {
        let path = directory.join(name);
        let within = path.ancestors().skip(1).take_while(|parent| *parent != directory);
        // Above a file there may be directories, but nothing else.
        let in_the_way = |path: &&Path| fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir());
        if let Some(path) = within.into_iter().find(in_the_way) {
            return Err(Error::NotOurs { path: path.into() });
        }
        if fs::symlink_metadata(&path).is_ok() {
            return Err(Error::NotOurs { path });
        }
    }
    Ok(())
}

fn names(directory: &Path) -> Result<Vec<std::ffi::OsString>> {
    let failed = |error| Error::io("read", directory)(error);
    let entries = fs::read_dir(directory).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(failed)).collect()
}

fn check_writable(directory: &Path) -> Result<()> {
    let allowed = access(directory, Access::WRITE_OK | Access::EXEC_OK);
    allowed.map_err(|error| Error::io("write into", directory)(error.into()))
}

pub(super) fn check_link(path: &Path) -> Result<()> {
    match fs::read_link(path) {
        Ok(target) if !path.exists() => Err(Error::BrokenLink { path: path.into(), target }),
        _ => Ok(()),
    }
}
