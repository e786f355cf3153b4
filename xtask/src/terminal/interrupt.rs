//! Ctrl-C: asks the work in progress to stop at the next suitable point.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use pipeline::Interrupted;

static STOP: AtomicBool = AtomicBool::new(false);
/// Whether the work in progress stops by itself once [`STOP`] is set.
static FINISHING: AtomicBool = AtomicBool::new(false);

/// The exit code after Ctrl-C: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

/// How to continue after an interruption.
const RESUME: &str = "run the same command again to resume";

/// From now on, Ctrl-C ends the process with [`EXIT_CODE`]; while the work in progress is stoppable, the
/// first one only sets [`flag`].
pub fn listen() -> Result<()> {
    let handler = || {
        if !FINISHING.load(Ordering::Relaxed) || STOP.swap(true, Ordering::Relaxed) {
            eprintln!("\ninterrupted");
            std::process::exit(EXIT_CODE.into());
        }
        eprintln!("\nstopping at the next good point (Ctrl-C again to end at once)");
    };
    ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")
}

/// Sets whether the work in progress saves its state or leaves nothing behind. See
/// [`pipeline::Watch::stoppable`].
pub fn set_finishing(whether: bool) {
    FINISHING.store(whether, Ordering::Relaxed);
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
