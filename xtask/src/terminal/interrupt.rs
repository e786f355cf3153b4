//! Ctrl-C: asks the work in progress to stop at the next suitable point.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pipeline::Interrupted;

use super::progress::say;

static STOP: AtomicBool = AtomicBool::new(false);
/// How much of the work in progress stops by itself once [`STOP`] is set.
static FINISHING: AtomicUsize = AtomicUsize::new(0);

/// When the user first wanted to stop.
static SINCE: OnceLock<Instant> = OnceLock::new();
/// What the work in progress has saved last, by where it saves.
static KEPT: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());

/// Signals closer together than this are one wish: terminals, cargo and schedulers may all pass it on.
const ONE_WISH: Duration = Duration::from_secs(1);

/// The exit code after Ctrl-C: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

/// How to continue after an interruption.
const RESUME: &str = "run the same command again to resume";

/// From now on, Ctrl-C ends the process with [`EXIT_CODE`]; while any of the work in progress is stoppable, the
/// first one only sets [`flag`], and those that follow at once are taken for the same.
pub fn listen() -> Result<()> {
    let handler = || {
        if FINISHING.load(Ordering::Relaxed) > 0 {
            let first = !STOP.swap(true, Ordering::Relaxed);
            let since = SINCE.get_or_init(Instant::now);
            if first {
                say("stopping at the next good point (Ctrl-C again to end at once)");
            }
            if first || since.elapsed() < ONE_WISH {
                return;
            }
        }
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept.values().map(String::as_str).collect::<Vec<_>>() {
            [] => eprintln!("\ninterrupted"),
            kept => eprintln!("\ninterrupted: {}; {RESUME}", kept.join("; ")),
        }
        std::process::exit(EXIT_CODE.into());
    };
    ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")
}

/// From now on, Ctrl-C only sets [`flag`]: the processes that this one has started get it, too.
pub fn listen_for_others() -> Result<()> {
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed)).context("cannot listen for Ctrl-C")
}

/// Some work begins, or has ended, that saves its state or leaves nothing behind. See
/// [`pipeline::Watch::stoppable`].
pub fn set_finishing(whether: bool) {
    match whether {
        true => FINISHING.fetch_add(1, Ordering::Relaxed),
        false => FINISHING.fetch_sub(1, Ordering::Relaxed),
    };
}

/// Work that saves in a directory has saved a step.
pub fn set_kept(directory: &Path, step: u64, checkpoint: &Path) {
    let kept = format!("step {step} is saved in {}", checkpoint.display());
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.to_owned(), kept);
}

/// Work that saves in a directory has ended.
pub fn forget(directory: &Path) {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).remove(directory);
}

/// Set once the user wants to stop.
pub fn flag() -> &'static AtomicBool {
    &STOP
}

/// Fails if the user wants to stop; `left` says what exists by then.
pub fn check(left: &str) -> Result<()> {
    match STOP.load(Ordering::Relaxed) {
        true => Err(Interrupted { left: Some(left.to_owned()), resumes: false }.into()),
        false => Ok(()),
    }
}

/// Describes an interruption and how to continue.
pub fn said(interrupted: &Interrupted) -> String {
    match (interrupted.resumes, &interrupted.left) {
        (false, _) => interrupted.to_string(),
        (true, Some(_)) => format!("{interrupted}; {RESUME}"),
        (true, None) => format!("{interrupted}: {RESUME}"),
    }
}
