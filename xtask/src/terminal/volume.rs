//! How much the user wants to hear.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use clap::Args;

use crate::ranks;

/// Set once, before any work.
static VOLUME: AtomicU8 = AtomicU8::new(USUAL);
const QUIET: u8 = 0;
const USUAL: u8 = 1;
const VERBOSE: u8 = 2;

/// How much the user wants to hear.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Volume {
    /// Show neither progress nor notes, only warnings, errors and results
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Show more: every checkpoint, and progress more often where there is no terminal
    #[arg(short, long, global = true)]
    verbose: bool,
}

impl Volume {
    pub fn set(self) {
        let volume = if self.quiet {
            QUIET
        } else if self.verbose {
            VERBOSE
        } else {
            USUAL
        };
        VOLUME.store(volume, Ordering::Relaxed);
    }
}

pub fn is_quiet() -> bool {
    VOLUME.load(Ordering::Relaxed) == QUIET || !ranks::is_first()
}

pub fn is_verbose() -> bool {
    VOLUME.load(Ordering::Relaxed) == VERBOSE
}

/// The interval between plain lines of progress.
pub fn line_every() -> Duration {
    Duration::from_secs(if is_verbose() { 2 } else { 15 })
}
