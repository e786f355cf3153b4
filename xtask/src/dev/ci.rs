use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use pipeline::numbers::duration;

use crate::dev::{build, feature, libtorch, resources};

const EXAMPLES: &str = concat!("Example:\n", "  cargo xtask ci --only clippy",);

/// Run every check that must pass: format, lints, tests, documentation, and a small quickstart
///
/// Stops at the first step that fails and names it. Snapshots are compared, never updated.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Run only this step; can be repeated
    #[arg(long, value_enum, value_name = "STEP")]
    only: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Step {
    /// cargo fmt --check
    Format,
    /// Fetch libtorch if there is none: `cargo xtask setup tch`
    Libtorch,
    /// cargo clippy with warnings denied
    Clippy,
    /// cargo test
    Test,
    /// cargo doc with warnings denied
    Doc,
    /// The quickstart recipe with only a few steps
    Smoke,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        resources::sources("`ci`")?;
        let wanted = |step: &Step| self.only.is_empty() || self.only.contains(step);
        for step in Step::value_variants().iter().filter(|step| wanted(step)) {
            let name = step.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            eprintln!("==> {name}");
            let start = Instant::now();
            step.run().with_context(|| format!("ci: step {name} failed"))?;
            eprintln!("==> {name} passed in {}", duration(start.elapsed().as_secs_f64()));
        }
        Ok(())
    }
}

impl Step {
    fn run(self) -> Result<()> {
        let cargo = build::cargo_with_libtorch;
        match self {
            Step::Format => succeed(cargo("fmt")?.args(["--all", "--check"])),
            Step::Libtorch => libtorch::install().map(drop),
            // The profile used for the product and the tests, so that nothing is built twice.
            Step::Clippy => {
                let mut clippy = cargo("clippy")?;
                clippy.args(EVERYTHING).args(["--features", &features(&["backend-tch/emulator"])]);
                succeed(clippy.args(["--all-targets", "--", "--deny", "warnings"]))?;
                // The program without optional parts.
                let mut clippy = cargo("clippy")?;
                clippy.args(PROGRAM).args(["--no-default-features", "--features", "burn"]);
                succeed(clippy.args(["--", "--deny", "warnings"]))?;
                // The part of T5 that fusing needs.
                let mut clippy = cargo("clippy")?;
                clippy.args(["--release", "--locked", "--package", "t5-model", "--no-default-features"]);
                succeed(clippy.args(["--lib", "--example", "fuse", "--", "--deny", "warnings"]))
            }
            Step::Test => {
                let mut test = cargo("test")?;
                test.args(EVERYTHING).args(["--features", &features(&[])]);
                succeed(test.env("INSTA_UPDATE", "no"))?;
                // The comparison of backends again, with tch in the program, and processes that meet over it.
                let mut test = cargo("test")?;
                test.args(PROGRAM).args(["--features", &features(&["tch"])]);
                succeed(test.args(["--test", "it", "--", "backends", "processes"]))
            }
            Step::Doc => {
                let mut doc = cargo("doc")?;
                succeed(doc.args(EVERYTHING).arg("--no-deps").env("RUSTDOCFLAGS", "--deny warnings"))
            }
            Step::Smoke => {
                smoke("burn", None)?;
                smoke("dfdx", Some(&features(&[])))?;
                // Builds tch on its own.
                smoke("tch", Some(&features(&[])))
            }
        }
    }
}

/// All crates, including tch's, which is not a default member.
const EVERYTHING: [&str; 3] = ["--release", "--workspace", "--locked"];
const PROGRAM: [&str; 4] = ["--release", "--locked", "--package", "xtask"];

/// The features of the tested program, and these.
fn features(more: &[&'static str]) -> String {
    feature::self_contained().chain(more.iter().copied()).collect::<Vec<_>>().join(",")
}

/// Runs the small quickstart as a user would, with the default features or these. Does not run this program's
/// own file, which building the tests has replaced.
fn smoke(backend: &str, features: Option<&str>) -> Result<()> {
    let output = tempfile::tempdir().context("cannot create a temporary directory")?;
    let mut run = build::cargo("run")?;
    run.arg("--quiet").args(PROGRAM).args(features.map(|features| format!("--features={features}")));
    run.args(["--", "run", "recipes/quickstart-smoke.toml", "--backend", backend, "--build", "--output"]);
    succeed(run.arg(output.path().join("run"))).with_context(|| format!("the quickstart on {backend}"))
}

fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    if status.success() { Ok(()) } else { bail!("{program} ended with {status}") }
}
