//! What the reports of benches have in common.

use anyhow::{Result, bail};
use pipeline::report::table::Table;
use serde::Serialize;

use super::turns::Measured;
use crate::terminal::output::{print, print_json};

/// A contestant's outcome.
#[derive(Serialize)]
pub struct Entry<Figures> {
    name: String,
    /// Where a bench asks for it.
    #[serde(flatten)]
    pub device: Option<Device>,
    rounds: Vec<Vec<f64>>,
    /// If it came to its end.
    #[serde(flatten)]
    figures: Option<Figures>,
    error: Option<String>,
}

#[derive(Serialize)]
pub struct Device {
    /// An NVIDIA GPU's name.
    pub gpu: Option<String>,
}

impl<Figures> Entry<Figures> {
    /// One with these times of each round.
    pub fn new<Turn, Summary>(
        measured: &Measured<Turn, Summary>,
        device: Option<Device>,
        rounds: impl Iterator<Item = Vec<f64>>,
        figures: Option<Figures>,
    ) -> Self {
        let (name, error) = (measured.contestant.to_string(), measured.summary.as_ref().err().cloned());
        Entry { name, device, rounds: rounds.collect(), figures, error }
    }
}

/// Whom the others are compared with, of those that came to their end: the one of that name, or else the first in Python, or
/// else the first.
pub fn reference<'a, Turn, Summary>(
    measured: &'a [Measured<Turn, Summary>],
    name: Option<&str>,
) -> Option<&'a Measured<Turn, Summary>> {
    let ended = || measured.iter().filter(|one| one.summary.is_ok());
    let named = ended().find(|one| Some(one.contestant.to_string().as_str()) == name);
    named.or_else(|| ended().find(|one| one.contestant.needs_python())).or_else(|| ended().next())
}

/// A row for each that came to its end, and why the others did not.
pub fn table<Figures, const COLUMNS: usize>(
    header: [&str; COLUMNS],
    entries: &[Entry<Figures>],
    row: impl Fn(&Figures, &str) -> [String; COLUMNS],
) -> String {
    let mut table = Table::new(header);
    let rows = entries.iter().filter_map(|one| Some(row(one.figures.as_ref()?, &one.name).to_vec()));
    table.rows.extend(rows);
    let mut text = if table.rows.is_empty() { String::new() } else { table.text() };
    for Entry { name, error, .. } in entries {
        text.extend(error.as_ref().map(|error| format!("{name}  failed: {error}\n")));
    }
    text
}

/// Prints a report as text, or else as JSON; fails if contestants did.
pub fn conclude<F>(report: &impl Serialize, text: Option<String>, entries: &[Entry<F>]) -> Result<()> {
    match text {
        Some(text) => print(&text)?,
        None => print_json(report)?,
    }
    match entries.iter().filter(|one| one.error.is_some()).count() {
        0 => Ok(()),
        failed => bail!("{failed} of the contestants failed"),
    }
}
