//! Results to standard output, messages to standard error.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::{Context, Result};
use serde::Serialize;

/// Prints a result. A reader that has gone away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints a result for programs.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// An error with its causes, without those that its message already spells out.
pub fn causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            let _ = write!(text, "\n  because: {cause}");
        }
    }
    text
}

/// `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count for people: `950`, `77.0 k`, `1.1 M`, `3.5 G`.
pub fn count(number: f64) -> String {
    let units = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.into_iter().find(|(size, _)| number >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", number / size),
        None => format!("{number:.0}"),
    }
}

/// Bytes for people: `950 B`, `4.6 GB`.
pub fn bytes(number: f64) -> String {
    match count(number) {
        text if number < 1e3 => text + " B",
        text => text + "B",
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, causes, count, thousands};

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([7.0, 1_500.0, 77e6, 3.52e15].map(count), ["7", "1.5 k", "77.0 M", "3.5 P"]);
        assert_eq!([7.0, 4.551e9].map(bytes), ["7 B", "4.6 GB"]);
    }

    #[test]
    fn a_cause_is_said_once() {
        let error =
            anyhow::anyhow!("no such file").context("cannot read it: no such file").context("cannot run");
        assert_eq!(causes(&error), "cannot run\n  because: cannot read it: no such file");
    }
}
