use anyhow::Result;
use clap::{Args, Subcommand};

mod fuse;

/// Measure this machine
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    Fuse(fuse::Arguments),
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        match self.bench {
            Bench::Fuse(arguments) => arguments.run(),
        }
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn medians() {
        assert_eq!(super::median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(super::median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(super::median([]).is_nan());
    }
}
