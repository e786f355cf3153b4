//! The commands, one module each.

mod backends;
mod check;
pub mod compute;
mod convert;
mod data;
mod evaluate;
mod export;
mod forward;
mod fuse;
mod generate;
mod glue;
mod inspect;
mod pretrain;
mod report;
mod run;
mod section;
mod verify;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::dev::{bench, bundle, ci, conformance, setup};

/// Grows language models: pretrain small T5s, fuse them into a larger one, train on, and score it.
///
/// A recipe describes a whole road, `cargo xtask run recipes/quickstart.toml` goes it. The other commands take one step
/// at a time, from and to Hugging Face checkpoints.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Pretrain(pretrain::Arguments),
    Fuse(fuse::Arguments),
    Check(check::Arguments),
    Evaluate(evaluate::Arguments),
    Glue(glue::Arguments),
    Data(data::Arguments),
    Generate(generate::Arguments),
    Verify(verify::Arguments),
    Inspect(inspect::Arguments),
    Export(export::Arguments),
    Convert(convert::Arguments),
    Forward(forward::Arguments),
    Report(report::Arguments),
    Backends(backends::Arguments),
    Setup(setup::Arguments),
    Conformance(conformance::Arguments),
    Bench(bench::Arguments),
    Bundle(bundle::Arguments),
    Ci(ci::Arguments),
}

impl Cli {
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Run(arguments) => arguments.run(),
            Command::Pretrain(arguments) => arguments.run(),
            Command::Fuse(arguments) => arguments.run(),
            Command::Check(arguments) => arguments.run(),
            Command::Evaluate(arguments) => arguments.run(),
            Command::Glue(arguments) => arguments.run(),
            Command::Data(arguments) => arguments.run(),
            Command::Generate(arguments) => arguments.run(),
            Command::Verify(arguments) => arguments.run(),
            Command::Inspect(arguments) => arguments.run(),
            Command::Export(arguments) => arguments.run(),
            Command::Convert(arguments) => arguments.run(),
            Command::Forward(arguments) => arguments.run(),
            Command::Report(arguments) => arguments.run(),
            Command::Setup(arguments) => arguments.run(),
            Command::Backends(arguments) => arguments.run(),
            Command::Conformance(arguments) => arguments.run(),
            Command::Bench(arguments) => arguments.run(),
            Command::Bundle(arguments) => arguments.run(),
            Command::Ci(arguments) => arguments.run(),
        }
    }
}
