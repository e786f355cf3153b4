//! Rebuilds this program with features that it lacks, or for its checks.

use std::io::IsTerminal;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pipeline::NotBuilt;

use crate::dev::{feature, libtorch, resources};

/// Cargo, run in the workspace so that it uses the flags configured there.
pub fn cargo(command: &str) -> Result<Command> {
    let workspace = resources::sources(&format!("`cargo {command}`"))?;
    // `cargo run` says which cargo runs it; otherwise, the one on the path will do.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(command).current_dir(workspace);
    // What `cargo run` says about this package. Build scripts watch these variables, and would rerun whenever
    // cargo is started from here.
    let about = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    for (name, _) in std::env::vars_os() {
        if about.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    Ok(cargo)
}

/// The same, for building all crates; it finds libtorch where it was fetched.
pub fn cargo_with_libtorch(command: &str) -> Result<Command> {
    let mut cargo = cargo(command)?;
    if let Some(libtorch) = libtorch::find()? {
        cargo.envs(libtorch.variables());
    }
    Ok(cargo)
}

/// Fails with instructions for getting libtorch if there is none.
pub fn require_libtorch() -> Result<()> {
    let found = libtorch::find()?.with_context(|| {
        "the backend tch needs libtorch 2.11.0, and there is none: `cargo xtask setup tch` fetches it; where one is \
         installed, LIBTORCH=DIR names it, and LIBTORCH_USE_PYTORCH=1 takes that of the Python on the path"
    });
    found.map(drop)
}

/// The backend of that name, with support for a device.
pub fn backend(name: &str, device: Option<&str>) -> Result<&'static dyn t5_model::Backend> {
    match feature::missing_for(name, device) {
        Some(feature) => Err(NotBuilt { features: vec![feature.name] }.into()),
        None => Ok(t5_model::backend(name)?),
    }
}

/// Rebuilds this program with what it lacks, and replaces this process with it, running the same command.
/// Says first what that takes, and asks unless it was `asked_for`. Returns why that failed.
pub fn again_with(missing: &NotBuilt, asked_for: bool) -> anyhow::Error {
    match rebuild(&missing.features, asked_for) {
        Ok(program) => replace(program),
        Err(error) => error,
    }
}

fn rebuild(missing: &[&'static str], asked_for: bool) -> Result<Command> {
    let names = missing.join(",");
    // Set for the replacing process: if that lacks them as well, something is wrong.
    const BUILT_FOR: &str = "DEEP_FUSION_BUILT_FOR";
    let again = std::env::var_os(BUILT_FOR).is_some_and(|built| *built == *names);
    ensure!(!again, "the program was built with {names} and does not have it");
    ensure!(
        !resources::is_bundle(),
        "this bundle was built without {names}; `cargo xtask bundle --features {names}` makes one with it"
    );
    ensure!(
        resources::is_in_checkout(),
        "this program was installed without {names}; in a checkout, `{}` installs it with that",
        install(missing)
    );
    possible(missing)?;
    let missing_features = || feature::missing().filter(|feature| missing.contains(&feature.name));
    for feature in missing_features() {
        let needs = feature.needs.map_or(String::new(), |needs| format!("; needs {needs}"));
        eprintln!("not built yet: {} (about {} on two cores{needs})", feature.is, feature.takes);
    }
    consent(asked_for)?;
    // Cargo replaces this program's file, so its path must be read first.
    let program = std::env::current_exe().context("this program's file is not known")?;
    for feature in missing_features() {
        eprintln!("building {}", feature.is);
    }
    let mut build = cargo_with_libtorch("build")?;
    build.args(["--release", "--package", "xtask", "--features", &with(missing)]);
    let status = build.status().context("cannot start cargo")?;
    ensure!(status.success(), "building with {names} failed");
    let mut program = Command::new(program);
    program.env(BUILT_FOR, names).args(std::env::args_os().skip(1));
    Ok(program)
}

/// Checks what can be checked before minutes are spent on a build that cannot succeed.
fn possible(missing: &[&'static str]) -> Result<()> {
    let mut cargo = cargo("--version")?;
    let found = cargo.stdout(Stdio::null()).stderr(Stdio::null()).status();
    ensure!(
        found.is_ok_and(|status| status.success()),
        "cargo, which builds what is missing, does not start: is Rust installed and on the path?"
    );
    if missing.contains(&"tch") {
        require_libtorch()?;
    }
    if missing.contains(&"cuda") && !has_llvm() {
        bail!(
            "burn's CUDA devices cannot be built here: their build fetches LLVM from {LLVM_HOST}, which cannot be reached, and \
             there is none in ~/.cache/tracel; `--backend tch` runs on NVIDIA GPUs, too"
        );
    }
    Ok(())
}

/// Where burn's build fetches its LLVM from.
const LLVM_HOST: &str = "github.com";

/// Whether the build of burn's CUDA devices finds its LLVM: in its cache, or on the network.
fn has_llvm() -> bool {
    let cached = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/tracel"));
    let is_cached = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.any(|name| name.starts_with("tracel-llvm-") && name.ends_with(".tar.xz"))
    };
    // Through a proxy, only the build itself can tell.
    let proxy = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    cached.is_some_and(is_cached) || proxy || is_reachable(LLVM_HOST)
}

fn is_reachable(host: &str) -> bool {
    let addresses = (host, 443).to_socket_addrs().into_iter().flatten();
    let within = Duration::from_secs(5);
    addresses.take(3).any(|address| TcpStream::connect_timeout(&address, within).is_ok())
}

/// Asks whether to build, on a terminal; elsewhere it must have been asked for.
fn consent(asked_for: bool) -> Result<()> {
    if asked_for {
        return Ok(());
    }
    let (input, output) = (std::io::stdin(), std::io::stderr());
    ensure!(input.is_terminal() && output.is_terminal(), "--build builds it, and then runs the command");
    eprint!("Build it now? [Y/n] ");
    let mut answer = String::new();
    input.read_line(&mut answer).context("cannot read the answer")?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "" | "y" | "yes" => Ok(()),
        _ => bail!("it was not built"),
    }
}

/// The features that this program has, and these.
fn with(missing: &[&'static str]) -> String {
    let built = feature::FEATURES.iter().filter(|feature| feature.is_built).map(|feature| feature.name);
    built.chain(missing.iter().copied()).collect::<Vec<_>>().join(",")
}

/// The command that installs this program with these features, too.
pub fn install(missing: &[&'static str]) -> String {
    format!("cargo install --locked --path xtask --features {}", with(missing))
}

/// Replaces this process with another; returns only if that cannot be started.
#[cfg(unix)]
fn replace(mut command: Command) -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    anyhow::Error::new(command.exec()).context("cannot start what was built")
}

#[cfg(not(unix))]
fn replace(mut command: Command) -> anyhow::Error {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => anyhow::Error::new(error).context("cannot start what was built"),
    }
}
