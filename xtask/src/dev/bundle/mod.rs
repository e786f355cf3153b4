mod archive;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use archive::{Built, is_bundle, pack};
use clap::Args;
use fusion_core::atomic::{check_file, write_file_atomically};
use pipeline::numbers::bytes;
use serde_json::Value;

use crate::dev::{build, feature, resources};
use crate::terminal::output::print;

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask bundle --output deep-fusion.tar.gz\n",
    "  cargo xtask bundle --output deep-fusion.tar.gz --cpu x86-64-v4 --features wgpu\n",
    "\n",
    "On the other machine:\n",
    "  tar -xzf deep-fusion.tar.gz\n",
    "  deep-fusion/deep-fusion conformance --backend tch --device cuda:0",
);

/// Pack the program for machines without Rust, such as those with a GPU
///
/// The archive has the program with burn, dfdx and tch, the recipes, and what conformance and bench read. It runs on Linux
/// and needs no network. There, `deep-fusion` stands for `cargo xtask`. It takes libtorch 2.11 from LIBTORCH, from a folder `libtorch` beside it, or from
/// the PyTorch of the Python on the path. What needs the source tree is refused: ci, setup, and building what is missing.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The archive to write (.tar.gz)
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The oldest processor to support, as named by `rustc --print target-cpus`
    #[arg(long, value_name = "CPU", default_value = CPU)]
    cpu: String,
    /// Features to build besides these: `wgpu`, `cuda`
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    features: Vec<String>,
    /// Pack this program, for tests
    #[arg(long, value_name = "FILE", hide = true)]
    program: Option<PathBuf>,
}

/// Supported by almost every machine of the last ten years.
const CPU: &str = if cfg!(target_arch = "x86_64") { "x86-64-v3" } else { "generic" };

impl Arguments {
    pub fn run(self) -> Result<()> {
        let sources = resources::sources("`bundle`")?;
        check_file(&self.output)?;
        let shown = self.output.display();
        ensure!(is_free(&self.output), "{shown} exists and is no bundle, so it is not overwritten");
        ensure!(cfg!(target_os = "linux"), "bundles run on Linux and must be made there");
        let mut features: Vec<String> = feature::self_contained().chain(["tch"]).map(str::to_owned).collect();
        features.extend(self.features.clone());
        let program = match &self.program {
            Some(program) => program.clone(),
            None => build(&self.cpu, &features)?,
        };
        let built = Built { version: env!("CARGO_PKG_VERSION"), cpu: self.cpu, features };
        let archive = pack(sources, &program, &built)?;
        write_file_atomically(&self.output, &archive)?;
        let size = bytes(archive.len() as f64);
        print(&format!("{}: {size}, for {} and later\n", self.output.display(), built.cpu))
    }
}

/// Whether there is nothing, or an earlier bundle.
fn is_free(path: &Path) -> bool {
    fs::metadata(path).map_or(0, |found| found.len()) == 0 || is_bundle(path)
}

/// Builds the program and returns its path.
fn build(cpu: &str, features: &[String]) -> Result<PathBuf> {
    build::require_libtorch()?;
    eprintln!("building for {cpu} with {} (the first time takes minutes)", features.join(", "));
    let mut cargo = build::cargo_with_libtorch("build")?;
    cargo.args(["--release", "--locked", "--package", "xtask", "--features", &features.join(",")]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    // The workspace's own flags are for this machine. Those in the environment take precedence.
    cargo.env("RUSTFLAGS", format!("-C target-cpu={cpu}")).env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "building for {cpu} failed");
    let messages = String::from_utf8_lossy(&output.stdout);
    messages.lines().find_map(executable).context("cargo did not say where the program is")
}

/// The executable that a cargo message reports.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    Some(Path::new(message["executable"].as_str()?).to_owned())
}
