//! `cargo xtask`: the command line. Parses, wires the crates together, and reports; the only place that links
//! backends.

mod build;
mod bundle;
mod command;
mod compute;
mod convert;
mod corpus;
mod digest;
mod export;
mod glue_files;
mod hub;
mod interrupt;
mod libtorch;
mod model;
mod output;
mod problems;
mod progress;
mod recipe;
mod report;
mod resources;
mod stage;
#[cfg(feature = "webster")]
mod webster;
mod writing;

use std::process::ExitCode;

// A dependency alone registers nothing: the linker must see a use of it.
#[cfg(feature = "burn")]
use backend_burn as _;
#[cfg(feature = "dfdx")]
use backend_dfdx as _;
#[cfg(feature = "tch")]
use backend_tch as _;
use clap::Parser;

use crate::interrupt::Interrupted;

fn main() -> ExitCode {
    match command::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("{error}");
            ExitCode::from(Interrupted::EXIT_CODE)
        }
        Err(error) => {
            eprintln!("error: {}", output::causes(&error));
            ExitCode::FAILURE
        }
    }
}
