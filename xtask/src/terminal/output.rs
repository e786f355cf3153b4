//! Prints results to standard output and messages to standard error.

use std::io::{self, Write as _};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::ranks;

/// How a table is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    Text,
    Markdown,
    Csv,
    Json,
}

/// Prints a result. A closed pipe (`| head`) is not an error.
///
/// Of processes that compute together, one prints it.
pub fn print(text: &str) -> Result<()> {
    if !ranks::is_first() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints a result as JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}
