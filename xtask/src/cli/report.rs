use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipeline::report::Report;
use pipeline::report::glue_table::Beside;

use crate::terminal::output::{Format, print, print_json};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask report runs/quickstart --format markdown\n",
    "  cargo xtask report small-glue fused-glue --baseline small-glue",
);

/// Show what runs came to: every stage, training from scratch against fusions, and GLUE
///
/// Reads directories that `cargo xtask run` wrote, finished or not, and those of `cargo xtask glue --output`. The fused
/// models of a run are compared with its baseline at equal steps and at equal computation, the parents' training counted,
/// as in the paper's Tables 1 and 4. Where no fusion wins, it says so. Several runs are put side by side.
///
/// GLUE's table has the columns of the paper's Table 5, the paper's averages (Table 3) and T5's own figures beside it, and a
/// mark where a model differs from the baseline by no more than a standard deviation over seeds.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The runs' directories
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// How it is written; csv: GLUE's table alone
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// The model that GLUE's table compares the others with, as the table calls it [default: the first]
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Add rows to GLUE's table from a file as --format csv writes it, such as figures of a paper; can be repeated
    #[arg(long, value_name = "FILE")]
    beside: Vec<PathBuf>,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let mut beside = Beside { baseline: self.baseline, rows: Vec::new() };
        for file in &self.beside {
            beside.rows.extend(glue_eval::read_rows(file)?);
        }
        let report = Report::of(&self.runs, &beside)?;
        match self.format {
            _ if self.json => print_json(&report),
            Format::Json => print_json(&report),
            Format::Text => print(&report.text()),
            Format::Markdown => print(&report.markdown()),
            Format::Csv => print(&report.csv()?),
        }
    }
}
