//! Moves files into a directory that stays where it is.

use std::fs;
use std::path::{Path, PathBuf};

use super::place::{check_free, remove_empty_parents};
use super::record::Record;
use super::{OWN_NAME, Target, Temporary, sync};
use crate::{Error, Result};

/// Without this file, a directory is no checkpoint. It leaves first and comes last.
const LAST: &str = "config.json";

/// Moves finished files into a directory on the same file system. What is recorded there as written earlier goes. If
/// anything fails, all is as it was.
pub(super) fn move_in(finished: &Path, record: &Record, directory: &Path, earlier: &Record) -> Result<()> {
    check_free(directory, earlier, record.names())?;
    // Until all is done, old and new files are both this program's.
    earlier.or(record).write(directory)?;
    let aside = Target { parent: directory.into(), name: OWN_NAME.into() };
    let aside = Temporary { path: aside.temporary() };
    fs::create_dir(&aside.path).map_err(Error::io("create", &aside.path))?;

    let mut moves = Moves(Vec::new());
    let moved = move_all(&mut moves, finished, record, directory, earlier, &aside.path);
    if let Err(error) = moved {
        moves.undo();
        earlier.write(directory)?;
        return Err(error);
    }
    record.write(directory)?;
    for name in earlier.names().filter(|name| !record.contains(name)) {
        remove_empty_parents(directory, &directory.join(name));
    }
    sync(directory)
}

fn move_all(
    moves: &mut Moves,
    finished: &Path,
    record: &Record,
    directory: &Path,
    earlier: &Record,
    aside: &Path,
) -> Result<()> {
    let old = earlier.names().filter(|name| !name.ends_with('/') && directory.join(name).is_file());
    let (first, others): (Vec<&str>, Vec<&str>) = old.partition(|name| *name == LAST);
    for name in first.into_iter().chain(others) {
        moves.make(directory.join(name), aside.join(name))?;
    }
    let (last, others): (Vec<&str>, Vec<&str>) = record.names().partition(|name| *name == LAST);
    for name in others.into_iter().chain(last) {
        if name.ends_with('/') {
            let path = directory.join(name);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        } else {
            moves.make(finished.join(name), directory.join(name))?;
        }
    }
    Ok(())
}

/// What was moved from where to where.
struct Moves(Vec<(PathBuf, PathBuf)>);

impl Moves {
    fn make(&mut self, from: PathBuf, to: PathBuf) -> Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        fs::rename(&from, &to).map_err(Error::io("create", &to))?;
        self.0.push((from, to));
        Ok(())
    }

    /// Moves everything back. There is nothing left to do where that fails.
    fn undo(self) {
        for (from, to) in self.0.into_iter().rev() {
            let _ = fs::rename(to, from);
        }
    }
}
