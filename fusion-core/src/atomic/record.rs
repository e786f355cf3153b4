//! `.deep-fusion.json`: which files in a directory this program wrote. Only these are ever replaced or removed.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::write_file_atomically;
use crate::{Error, Result, json};

/// The record's name, in the directory that it describes.
pub const RECORD: &str = ".deep-fusion.json";
const VERSION: u32 = 1;

/// Files up to this size are hashed as a whole. Of larger ones, that many blocks at equal distances are: enough to
/// notice other weights without reading gigabytes again.
const WHOLE: u64 = 1 << 20;
const BLOCKS: u64 = 256;
const BLOCK: usize = 4096;

/// What this program wrote into a directory.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    version: u32,
    /// Paths of files relative to the directory, with a hash of each. What has no hash is a file that changes over
    /// time or a directory with a record of its own; if its name ends in a slash, an empty directory.
    files: BTreeMap<String, Option<String>>,
}

impl Default for Record {
    fn default() -> Self {
        Record { version: VERSION, files: BTreeMap::new() }
    }
}

impl Record {
    /// The record in a directory, if there is one.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(RECORD);
        if !path.exists() {
            return Ok(None);
        }
        let record: Record = json::read(&path)?;
        if record.version > VERSION {
            return Err(Error::RecordVersion { path, version: record.version, supported: VERSION });
        }
        Ok(Some(record))
    }

    /// What lies in a directory, all of which this process wrote.
    pub(super) fn of(directory: &Path) -> Result<Self> {
        let mut record = Record::default();
        record.add(directory, directory)?;
        Ok(record)
    }

    fn add(&mut self, root: &Path, directory: &Path) -> Result<()> {
        for entry in entries(directory)? {
            let path = entry.path();
            let name = name_in(root, &path)?;
            if !is_directory(&entry)? {
                self.files.insert(name.into(), Some(hash(&path)?));
            } else if entries(&path)?.is_empty() {
                self.files.insert(format!("{name}/"), None);
            } else {
                self.add(root, &path)?;
            }
        }
        Ok(())
    }

    /// Whether anything in `directory`, which is `root` or lies below it, is missing from the record of `root`.
    pub(super) fn lacks_any(&self, root: &Path, directory: &Path) -> Result<bool> {
        for entry in entries(directory)? {
            let path = entry.path();
            let Ok(name) = name_in(root, &path) else { return Ok(true) };
            let lacks = if !is_directory(&entry)? {
                !self.contains(name)
            } else if entries(&path)?.is_empty() {
                !self.contains(&format!("{name}/"))
            } else {
                self.lacks_any(root, &path)?
            };
            if lacks {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(Error::json(directory))?;
        write_file_atomically(&directory.join(RECORD), format!("{text}\n").as_bytes())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// Notes a file that changes over time, or a directory with a record of its own, unless it is there already.
    /// Returns whether that is new.
    pub(super) fn claim(&mut self, name: &str) -> bool {
        let new = !self.contains(name);
        if new {
            self.files.insert(name.into(), None);
        }
        new
    }

    /// Notes what is in a file now.
    pub(super) fn update(&mut self, directory: &Path, name: &str) -> Result<()> {
        let hash = hash(&directory.join(name))?;
        self.files.insert(name.into(), Some(hash));
        Ok(())
    }

    /// Notes that a file is about to change.
    pub(super) fn forget_hash(&mut self, name: &str) {
        self.files.insert(name.into(), None);
    }

    /// Both records' files; what both have may be either's.
    pub(super) fn or(&self, other: &Record) -> Record {
        let mut both = self.clone();
        for (name, hash) in &other.files {
            let same = both.files.get(name).is_none_or(|own| own == hash);
            both.files.insert(name.clone(), hash.clone().filter(|_| same));
        }
        both
    }

    /// Fails if a file was changed after it was recorded.
    pub(super) fn check_unchanged(&self, directory: &Path) -> Result<()> {
        for name in self.names() {
            if !self.is_unchanged(directory, name)? {
                return Err(Error::Changed { path: directory.join(name) });
            }
        }
        Ok(())
    }

    /// Whether a recorded file is as it was recorded. One that is gone counts as unchanged.
    pub(super) fn is_unchanged(&self, directory: &Path, name: &str) -> Result<bool> {
        let path = directory.join(name);
        let expected = self.files.get(name).and_then(Option::as_ref);
        Ok(match (fs::symlink_metadata(&path), expected) {
            (Ok(found), Some(expected)) => found.is_file() && hash(&path)? == *expected,
            (Ok(found), None) => found.is_file() || found.is_dir(),
            (Err(_), _) => true,
        })
    }
}

/// A directory's entries, except for its record.
fn entries(directory: &Path) -> Result<Vec<DirEntry>> {
    let failed = |error| Error::io("read", directory)(error);
    let entries = fs::read_dir(directory).map_err(failed)?.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    Ok(entries.into_iter().filter(|entry| entry.file_name() != RECORD).collect())
}

/// Links are not followed.
fn is_directory(entry: &DirEntry) -> Result<bool> {
    Ok(entry.file_type().map_err(Error::io("look at", entry.path()))?.is_dir())
}

/// A path relative to a directory, as in a record.
fn name_in<'a>(directory: &Path, path: &'a Path) -> Result<&'a str> {
    let name = path.strip_prefix(directory).ok().and_then(Path::to_str);
    let not_utf8 = || io::Error::new(io::ErrorKind::InvalidData, "its name is not UTF-8");
    name.ok_or_else(not_utf8).map_err(Error::io("record", path))
}

/// BLAKE3 of a file's length and content, or samples of its content.
fn hash(path: &Path) -> Result<String> {
    let failed = |error| Error::io("read", path)(error);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length.to_le_bytes());
    if length <= WHOLE {
        hasher.update_reader(file).map_err(failed)?;
    } else {
        let mut block = [0; BLOCK];
        let last = length - BLOCK as u64;
        for number in 0..BLOCKS {
            let offset = u128::from(last) * u128::from(number) / u128::from(BLOCKS - 1);
            file.read_exact_at(&mut block, offset as u64).map_err(failed)?;
            hasher.update(&block);
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
