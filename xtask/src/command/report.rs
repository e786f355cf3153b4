use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::output::{print, print_json};
use crate::report::Report;

const EXAMPLES: &str = concat!("Example:\n", "  cargo xtask report runs/quickstart --format markdown",);

/// Show what a run came to: every stage, and training from scratch against fusions
///
/// Reads a directory that `cargo xtask run` wrote, finished or not. The fused models are compared with the baseline at
/// equal steps and at equal computation, the parents' training counted, as in the paper's Tables 1 and 4. Where no
/// fusion wins, it says so.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The run's directory
    run: PathBuf,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Format {
    Text,
    Markdown,
    Json,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let report = Report::of_run(&self.run)?;
        match self.format {
            Format::Text if !self.json => print(&report.text()),
            Format::Markdown => print(&report.markdown()),
            _ => print_json(&report),
        }
    }
}
