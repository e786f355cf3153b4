//! `cargo xtask`, or `deep-fusion` where it is installed: the command line. Parses arguments, passes the pipeline a backend and a terminal, and
//! prints results; the only place that links backends.

mod cli;
mod dev;
mod ranks;
mod terminal;

use std::process::ExitCode;

// A dependency alone registers nothing: the linker must see it used.
#[cfg(feature = "burn")]
use backend_burn as _;
#[cfg(feature = "dfdx")]
use backend_dfdx as _;
#[cfg(feature = "tch")]
use backend_tch as _;
use pipeline::{Interrupted, NotBuilt};

use crate::dev::build;
use crate::terminal::{Asked, causes, interrupt, set_asked};

fn main() -> ExitCode {
    let cli = cli::Cli::read(std::env::args_os());
    let asked = if cli.is_recipe() { Asked::ByRecipe } else { Asked::ByFlags };
    let may_build = cli.may_build();
    set_asked(asked);
    let result = ranks::find().and_then(|()| cli.run());
    match result.map_err(|error| match NotBuilt::cause_of(&error) {
        Some(missing) => build::again_with(&missing, may_build),
        None => error,
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Interrupted>() {
            Some(interrupted) => {
                eprintln!("{}", interrupt::said(interrupted));
                ExitCode::from(interrupt::EXIT_CODE)
            }
            None => {
                let rank = ranks::place().map_or(String::new(), |place| format!("rank {}: ", place.rank));
                eprintln!("{rank}error: {}", causes(&error, asked));
                ExitCode::FAILURE
            }
        },
    }
}
