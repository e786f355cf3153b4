use anyhow::Result;
use clap::{Args, Subcommand};

mod train;

/// Train a tokenizer
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    tokenizer: Tokenizer,
}

#[derive(Debug, Subcommand)]
enum Tokenizer {
    Train(train::Arguments),
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        match self.tokenizer {
            Tokenizer::Train(arguments) => arguments.run(),
        }
    }
}
