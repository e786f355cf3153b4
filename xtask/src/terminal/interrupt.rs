//! Ctrl-C: asks the work in progress to stop at its next good point.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

static STOP: AtomicBool = AtomicBool::new(false);
/// Whether the work in progress stops by itself once [`STOP`] is set.
static FINISHING: AtomicBool = AtomicBool::new(false);

/// The user's wish to stop, as an error that the command line turns into its own exit code.
#[derive(Debug)]
pub struct Interrupted {
    /// How to go on.
    pub advice: String,
}

impl Interrupted {
    /// 128 + SIGINT.
    pub const EXIT_CODE: u8 = 130;
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted: {}", self.advice)
    }
}

impl std::error::Error for Interrupted {}

/// From now on, Ctrl-C ends the process with [`Interrupted::EXIT_CODE`], or while [`let_finish`] holds only sets
/// [`flag`] the first time.
pub fn listen() -> Result<()> {
    let handler = || {
        if !FINISHING.load(Ordering::Relaxed) || STOP.swap(true, Ordering::Relaxed) {
            eprintln!("\ninterrupted");
            std::process::exit(Interrupted::EXIT_CODE.into());
        }
        eprintln!("\nstopping at the next good point (Ctrl-C again to end at once)");
    };
    ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")
}

/// While this lives, work is under way that saves where it stands, or leaves nothing behind.
pub fn let_finish() -> Finishing {
    FINISHING.store(true, Ordering::Relaxed);
    Finishing
}

/// See [`let_finish`].
pub struct Finishing;

impl Drop for Finishing {
    fn drop(&mut self) {
        FINISHING.store(false, Ordering::Relaxed);
    }
}

/// Set once the user wants to stop.
pub fn flag() -> &'static AtomicBool {
    &STOP
}

/// Whether the user wants to stop.
pub fn wanted() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// The error that ends the command if the user wants to stop.
pub fn check(advice: &str) -> Result<()> {
    if wanted() { Err(Interrupted { advice: advice.to_owned() }.into()) } else { Ok(()) }
}
