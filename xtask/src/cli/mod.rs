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
mod recipe;
mod report;
mod run;
mod section;
mod text;
mod tokenizer;
mod verify;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::dev::{bench, bundle, ci, conformance, setup};

/// Grow language models: pretrain small T5s, fuse them into a larger one, train it further, and score it.
///
/// A recipe describes a whole experiment; `cargo xtask run recipes/quickstart.toml` runs one. The other
/// commands each perform a single step, and read and write Hugging Face checkpoints.
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

macro_rules! commands {
    ($($name:ident: $module:ident,)+) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($name($module::Arguments),)+
        }

        impl Cli {
            pub fn run(self) -> Result<()> {
                match self.command {
                    $(Command::$name(arguments) => arguments.run(),)+
                }
            }
        }
    };
}

// In the order in which the help lists them.
commands! {
    Run: run,
    Recipe: recipe,
    Pretrain: pretrain,
    Fuse: fuse,
    Check: check,
    Evaluate: evaluate,
    Glue: glue,
    Data: data,
    Tokenizer: tokenizer,
    Generate: generate,
    Verify: verify,
    Inspect: inspect,
    Export: export,
    Convert: convert,
    Forward: forward,
    Report: report,
    Backends: backends,
    Setup: setup,
    Conformance: conformance,
    Bench: bench,
    Bundle: bundle,
    Ci: ci,
}
