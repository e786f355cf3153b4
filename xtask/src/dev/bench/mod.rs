use std::fs;

use anyhow::Result;
use clap::{Args, Subcommand};

mod contestant;
mod field;
mod fuse;
mod glue;
mod gpu;
mod process;
mod protocol;
mod python;
mod report;
mod train;
mod turns;

/// Run benchmarks on this machine
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    Fuse(fuse::Arguments),
    Glue(glue::Arguments),
    #[command(hide = true)]
    GlueWorker(glue::worker::Arguments),
    Train(train::Arguments),
    #[command(hide = true)]
    TrainWorker(train::worker::Arguments),
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        match self.bench {
            Bench::Fuse(arguments) => arguments.run(),
            Bench::Glue(arguments) => arguments.run(),
            Bench::GlueWorker(arguments) => arguments.run(),
            Bench::Train(arguments) => arguments.run(),
            Bench::TrainWorker(arguments) => arguments.run(),
        }
    }
}

/// The middle value, or the mean of the two middle ones.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value that the given share of all values lie below, interpolated between neighbours.
fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let position = share * last as f64;
    let (below, above) = (values[position.floor() as usize], values[position.ceil() as usize]);
    below + position.fract() * (above - below)
}

/// A size from a process's status (`RssAnon`, `VmHWM`) in bytes, on systems that have it.
fn memory(process: &str, what: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'))?;
    Some(1024 * size.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn quantiles() {
        assert_eq!(super::median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(super::median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(super::median([]).is_nan());
        assert_eq!(super::quantile([5.0, 1.0, 3.0, 2.0, 4.0], 0.25), 2.0);
        assert_eq!(super::quantile([1.0, 2.0], 0.75), 1.75);
        assert_eq!(super::quantile([7.0], 0.25), 7.0);
    }
}
