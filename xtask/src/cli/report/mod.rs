mod serve;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use fusion_core::atomic::{Place, check_file, write_file_atomically};
use pipeline::report::glue_table::Beside;
use pipeline::report::page::Live;
use pipeline::report::results::{Depth, Results};
use pipeline::report::{Report, figures, page};

use crate::terminal::output::{Format, print, print_json};
use crate::terminal::plot;

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask report runs/quickstart --format markdown\n",
    "  cargo xtask report runs/quickstart --html quickstart.html\n",
    "  cargo xtask report runs/quickstart --figures figures\n",
    "  cargo xtask report runs/quickstart --serve\n",
    "  cargo xtask report small-glue fused-glue --baseline small-glue",
);

/// The port of `--serve`, so that a browser's page and a tunnel to it survive a restart.
const PORT: u16 = 6116;

/// Show the results of runs: every stage, fusions compared with training from scratch, and GLUE
///
/// Reads directories written by `run` and `pretrain`, finished or not, and by `glue --output`. A run's fused
/// models are compared with its baseline at equal steps and at equal computation, including the parents'
/// training, as in the paper's Tables 1 and 4. If no fusion wins, the report says so. Several runs are shown
/// side by side.
///
/// The GLUE table has the columns of the paper's Table 5. It includes the paper's averages (Table 3) and T5's
/// own figures, and marks models that differ from the baseline by no more than one standard deviation over
/// seeds.
///
/// --html writes one page that needs no network: learning curves to point at, with bands over seeds and the
/// place where each model passes the baseline, the recipe as a graph, GLUE, costs, fused weights as pictures,
/// holes filled, and what is needed to repeat the runs. Unfinished runs have one, too. --figures writes its
/// figures as files, such as loss-by-computation.svg and .png, for a paper or a README. --serve shows the page
/// in a browser on this machine, where it follows the runs as they go on.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The runs' directories
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// The output format; csv prints only the GLUE table
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Write a page of HTML instead of printing
    #[arg(long, value_name = "PAGE", conflicts_with_all = ["format", "json"])]
    html: Option<PathBuf>,
    /// Write the figures of that page as SVG and PNG files instead of printing
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["format", "json"])]
    figures: Option<PathBuf>,
    /// Show the page at http://127.0.0.1:PORT/ and renew it as the runs go on, until Ctrl-C
    #[arg(long, conflicts_with_all = ["format", "json", "html", "figures"])]
    serve: bool,
    /// The port of --serve; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = PORT, requires = "serve")]
    port: u16,
    /// The model that the GLUE table compares the others with, by its name in the table [default: the first]
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Add rows to the GLUE table, such as published figures, from a file in the format of --format csv; can
    /// be repeated
    #[arg(long, value_name = "FILE")]
    beside: Vec<PathBuf>,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let mut beside = Beside { baseline: self.baseline.clone(), rows: Vec::new() };
        for file in &self.beside {
            beside.rows.extend(glue_eval::read_rows(file)?);
        }
        if self.serve {
            return serve::serve(&Live::new(self.runs, beside)?, self.port);
        }
        if self.html.is_some() || self.figures.is_some() {
            return self.write(&beside);
        }
        let report = Report::of(&self.runs, &beside)?;
        match self.format {
            _ if self.json => print_json(&report),
            Format::Json => print_json(&report),
            Format::Text => {
                print(&report.text())?;
                if plot::is_shown() {
                    plot::show(&Results::of(&self.runs, &beside, Depth { weights: false })?)?;
                }
                Ok(())
            }
            Format::Markdown => print(&report.markdown()),
            Format::Csv => print(&report.csv()?),
        }
    }

    /// Writes the page, the figures, or both.
    fn write(&self, beside: &Beside) -> Result<()> {
        if let Some(place) = &self.html {
            check_file(place)?;
            let shown = place.display();
            ensure!(
                page::may_replace(place),
                "{shown} exists and is no page of a report, so it is not overwritten"
            );
        }
        if let Some(directory) = &self.figures {
            Place::of(directory)?;
        }
        let results = Results::of(&self.runs, beside, Depth::default())?;
        if let Some(place) = &self.html {
            write_file_atomically(place, page::html(&results)?.as_bytes())?;
            eprintln!("the page is in {}", place.display());
        }
        if let Some(directory) = &self.figures {
            let names = figures::write(&results, directory)?;
            let shown = directory.display();
            match names.is_empty() {
                true => eprintln!("there is nothing to draw yet, so nothing is in {shown}"),
                false => eprintln!("in {shown}, as SVG and PNG: {}", names.join(", ")),
            }
        }
        Ok(())
    }
}
