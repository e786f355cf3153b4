use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use pipeline::numbers::duration;

use crate::dev::{build, libtorch, resources};

const EXAMPLES: &str = concat!("Example:\n", "  cargo xtask ci --only clippy",);

/// Run everything that must pass: format, lints, tests, documentation, and the quickstart at a small scale
///
/// Stops at the first step that fails and names it. Snapshots are compared, never updated.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Run this step alone; can be repeated
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
    /// The quickstart's recipe with few steps
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
            // The profile of the product and of the tests, so that nothing is built twice.
            Step::Clippy => {
                succeed(cargo("clippy")?.args(EVERYTHING).args([
                    "--all-targets",
                    "--",
                    "--deny",
                    "warnings",
                ]))?;
                // The program without what is optional.
                let least = [
                    "--release",
                    "--locked",
                    "--package",
                    "xtask",
                    "--no-default-features",
                    "--features",
                    "burn",
                ];
                succeed(cargo("clippy")?.args(least).args(["--", "--deny", "warnings"]))?;
                // What fusing alone needs of T5.
                let fusing = ["--release", "--locked", "--package", "t5-model", "--no-default-features"];
                let targets = ["--lib", "--example", "fuse", "--", "--deny", "warnings"];
                succeed(cargo("clippy")?.args(fusing).args(targets))
            }
            Step::Test => {
                succeed(cargo("test")?.args(EVERYTHING).env("INSTA_UPDATE", "no"))?;
                // Once more with tch in the program, what compares backends.
                let with_tch = ["--release", "--locked", "--package", "xtask", "--features", "tch"];
                succeed(cargo("test")?.args(with_tch).args(["--test", "it", "backends"]))
            }
            Step::Doc => {
                let mut doc = cargo("doc")?;
                succeed(doc.args(EVERYTHING).arg("--no-deps").env("RUSTDOCFLAGS", "--deny warnings"))
            }
            Step::Smoke => ["burn", "dfdx", "tch"].into_iter().try_for_each(smoke),
        }
    }
}

/// All crates, tch's too, which are not among the default ones.
const EVERYTHING: [&str; 3] = ["--release", "--workspace", "--locked"];

/// Runs the small quickstart as a user would. Not this program's own file: building the tests has replaced it.
fn smoke(backend: &str) -> Result<()> {
    let output = tempfile::tempdir().context("cannot create a temporary directory")?;
    let mut run = build::cargo("run")?;
    run.args([
        "--quiet",
        "--release",
        "--locked",
        "--package",
        "xtask",
        "--",
        "run",
        "recipes/quickstart-smoke.toml",
    ]);
    run.args(["--backend", backend, "--output"]).arg(output.path().join("run"));
    succeed(&mut run).with_context(|| format!("the quickstart on {backend}"))
}

fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    if status.success() { Ok(()) } else { bail!("{program} ended with {status}") }
}
