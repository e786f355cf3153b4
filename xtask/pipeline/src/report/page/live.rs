//! The page of runs that are still going on: drawn anew whenever their files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::render;
use crate::report::glue_table::Beside;
use crate::report::results::{Depth, Results};
use crate::source::digest::hexadecimal;

/// Runs whose page follows them.
pub struct Live {
    runs: Vec<PathBuf>,
    beside: Beside,
    latest: Mutex<Option<Latest>>,
}

/// A page as it was at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The whole document.
    pub html: String,
    /// Another one whenever the runs' files are others.
    pub version: String,
}

struct Latest {
    page: Arc<Served>,
    drawn: Instant,
    took: Duration,
}

/// Between two drawings there is at least so many times what the last took: reading the weights of large models may
/// take seconds.
const SHARE: u32 = 10;

impl Live {
    /// # Errors
    /// As [`Results::of`], if there is nothing to show from the beginning.
    pub fn new(runs: Vec<PathBuf>, beside: Beside) -> Result<Self> {
        let live = Live { runs, beside, latest: Mutex::new(None) };
        live.page()?;
        Ok(live)
    }

    /// The page as the runs are now.
    ///
    /// # Errors
    /// A file that is damaged or being moved.
    pub fn page(&self) -> Result<Arc<Served>> {
        // A panic elsewhere leaves a whole page, or none, behind.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        // Taken before anything is read: what changes meanwhile is found the next time.
        let version = self.files();
        if let Some(latest) = &*latest
            && (latest.page.version == version || latest.drawn.elapsed() < SHARE * latest.took)
        {
            return Ok(Arc::clone(&latest.page));
        }
        let results = Results::of(&self.runs, &self.beside, Depth::default())?;
        let html = render(&results, Some(&version))?;
        let page = Arc::new(Served { html, version });
        *latest = Some(Latest { page: Arc::clone(&page), drawn: Instant::now(), took: began.elapsed() });
        Ok(page)
    }

    /// What changes if any of the runs' files does: their names, sizes and times.
    fn files(&self) -> String {
        let mut state = Sha256::new();
        for run in &self.runs {
            add(run, &mut state);
        }
        hexadecimal(state)
    }
}

/// Files may come and go meanwhile; one that is gone is left out.
fn add(place: &Path, state: &mut Sha256) {
    let Ok(about) = fs::metadata(place) else { return };
    let modified = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    state.update(place.as_os_str().as_encoded_bytes());
    state.update([0]);
    state.update(about.len().to_le_bytes());
    state.update(modified.unwrap_or_default().as_nanos().to_le_bytes());
    if !about.is_dir() {
        return;
    }
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    // Links inside a run are nobody's but the user's, and may lead round in a ring.
    let inside = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
    let mut inside: Vec<PathBuf> = inside.map(|entry| entry.path()).collect();
    inside.sort();
    inside.iter().for_each(|place| add(place, state));
}
