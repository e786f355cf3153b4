use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use t5_model::conformance::{Check, set_references, suite};

use crate::cli::compute::ComputeArguments;
use crate::dev::resources::{REFERENCES, resource};
use crate::terminal::output::{print, print_json};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask conformance\n",
    "  cargo xtask conformance --backend tch --precision bf16",
);

/// Check a backend's operations, models, training, and plan execution
///
/// Compares the values and gradients of every operation and of whole models with those of PyTorch and
/// transformers, fused models with the ensemble of their parents, ten updates with PyTorch's AdamW, and
/// executed plans with the host's results. Repeated and resumed training runs must be equal to the bit.
/// Deviations are relative to the largest expected value.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    compute: ComputeArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let ComputeArguments { backend, how, .. } = &self.compute;
        let checks = self.compute.run(|compute| {
            set_references(resource(REFERENCES)?);
            Ok(suite(compute.backend(), how)?)
        })?;
        if self.json {
            print_json(&json!({
                "backend": backend,
                "device": how.device,
                "precision": how.precision,
                "checks": checks,
            }))?;
        } else {
            let title = format!("{backend} on {}, {}", how.device, how.precision);
            print(&table(&title, &checks))?;
        }
        match checks.iter().filter(|check| !check.passed()).count() {
            0 => Ok(()),
            failed => bail!("{failed} of {} checks failed", checks.len()),
        }
    }
}

fn table(title: &str, checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0).max(title.len());
    let mut text = format!("{title:<width$}  {:>9}  {:>9}\n", "worst", "allowed");
    for check @ Check { name, worst, allowed, failure } in checks {
        let verdict = match (check.passed(), failure) {
            (true, _) => String::new(),
            (false, None) => "  FAILED".into(),
            (false, Some(failure)) => format!("  FAILED: {failure}"),
        };
        text += &format!("{name:<width$}  {worst:>9.1e}  {allowed:>9.1e}{verdict}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_says_why() {
        let check = |name: &str, worst, failure: Option<&str>| Check {
            name: name.into(),
            worst,
            allowed: 1e-5,
            failure: failure.map(Into::into),
        };
        let checks = [
            check("add, values", 0.0, None),
            check("relu, values", 0.5, None),
            check("scale, values", f64::INFINITY, Some("it is lost")),
        ];
        let text = table("new on cpu, f32", &checks);
        assert_eq!(
            text,
            "new on cpu, f32      worst    allowed\n\
             add, values          0.0e0     1.0e-5\n\
             relu, values        5.0e-1     1.0e-5  FAILED\n\
             scale, values          inf     1.0e-5  FAILED: it is lost\n"
        );
    }
}
