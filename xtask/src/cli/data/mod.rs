use anyhow::Result;
use clap::{Args, Subcommand};

mod check;
mod fetch;
mod sample;

/// Download and check GLUE's files, and show what a training reads
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    data: Data,
}

#[derive(Debug, Subcommand)]
enum Data {
    Fetch(fetch::Arguments),
    Check(check::Arguments),
    Sample(sample::Arguments),
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        match self.data {
            Data::Fetch(arguments) => arguments.run(),
            Data::Check(arguments) => arguments.run(),
            Data::Sample(arguments) => arguments.run(),
        }
    }
}
