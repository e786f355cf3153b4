use anyhow::Result;
use clap::{Args, Subcommand};

mod check;
mod fetch;
mod sample;
mod tokenize;

/// Download and check GLUE's files, tokenize text, and show what a training reads
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
    Tokenize(tokenize::Arguments),
}

impl Arguments {
    /// Whether several processes may do it together.
    pub fn is_shared(&self) -> bool {
        matches!(self.data, Data::Tokenize(_))
    }

    pub fn run(self) -> Result<()> {
        match self.data {
            Data::Fetch(arguments) => arguments.run(),
            Data::Check(arguments) => arguments.run(),
            Data::Sample(arguments) => arguments.run(),
            Data::Tokenize(arguments) => arguments.run(),
        }
    }
}
