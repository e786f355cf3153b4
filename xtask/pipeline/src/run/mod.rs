//! Runs: a directory with a subdirectory for each stage, the record of what has finished, which stages run side
//! by side, and forecasts.

mod execute;
mod forecast;
mod jobs;
pub mod journal;
mod lock;
mod machine;
mod reading;
mod run_file;
mod schedule;

use std::path::Path;

use anyhow::{Result, ensure};

pub use execute::{How, PAGE, REPORT, Run, State};
pub use forecast::{There, forecasts};
pub use lock::StageLock;
pub use machine::Machine;
pub use run_file::{LeftOut, RunFile, StageEntry};

/// Of `run.json` and `stage.json`.
const VERSION: u32 = 1;

/// A later program may have written what this one would misunderstand.
fn check_version(version: u32, path: &Path) -> Result<()> {
    ensure!(version <= VERSION, "{} is of version {version}, this program reads {VERSION}", path.display());
    Ok(())
}
