//! Work that several threads and processes want done, by one of them.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};

/// Does some work while this process holds a lock; others wait. Where files cannot be locked, the work may be done more
/// than once, and has to bear that.
pub fn once<T>(lock: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let folder = lock.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = File::create(lock).with_context(|| format!("cannot create {}", lock.display()))?;
    let _ = file.lock();
    let result = work();
    if result.is_ok() {
        // Whoever waits has the file open, and finds the work done. If it failed, they try one after the other.
        let _ = fs::remove_file(lock);
    }
    result
}
