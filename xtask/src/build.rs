//! This program, built again: with a backend that it was built without, or by its checks.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::libtorch;

/// The sources that this program was built from. It is always built where it runs.
pub fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Cargo, in the workspace: from there it reads the flags of the workspace's builds.
pub fn cargo(command: &str) -> Command {
    // `cargo run` tells which cargo runs it; built by hand, the one on the path will do.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(command).current_dir(workspace());
    // What `cargo run` says about this package. Build scripts watch it, and would run again whenever cargo is started from here.
    let about = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    for (name, _) in std::env::vars_os() {
        if about.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// The same, for what builds all crates; it finds libtorch where that was fetched.
pub fn cargo_with_libtorch(command: &str) -> Result<Command> {
    let mut cargo = cargo(command);
    if let Some(libtorch) = libtorch::find()? {
        cargo.envs(libtorch.variables());
    }
    Ok(cargo)
}

/// A backend that this program can have, but was built without.
pub struct Missing {
    pub name: &'static str,
    /// What it needs besides, for people.
    pub needs: &'static str,
}

/// Those that the workspace has and this program has not.
pub fn missing_backends() -> Vec<Missing> {
    let all = [
        Missing { name: "burn", needs: "nothing else" },
        Missing { name: "dfdx", needs: "nothing else" },
        Missing { name: "tch", needs: "libtorch 2.11.0, see `cargo xtask setup tch`" },
    ];
    let built: Vec<&str> = t5_model::backends().iter().map(|backend| backend.name()).collect();
    all.into_iter().filter(|backend| !built.contains(&backend.name)).collect()
}

pub fn is_missing(name: &str) -> bool {
    missing_backends().iter().any(|missing| missing.name == name)
}

/// The backend of that name. One that this program was built without is built, and then does what this process was asked
/// to do, in its place.
pub fn backend(name: &str) -> Result<&'static dyn t5_model::Backend> {
    if !is_missing(name) {
        return Ok(t5_model::backend(name)?);
    }
    // Set for the process that takes this one's place: if it has not got the backend either, something is wrong.
    const BUILT_FOR: &str = "DEEP_FUSION_BUILT_FOR";
    let again = std::env::var_os(BUILT_FOR).is_some();
    ensure!(!again, "the program was built with the feature `{name}` and has no such backend");
    if name == "tch" {
        libtorch::find()?.with_context(|| {
            "the backend tch needs libtorch 2.11.0, and there is none: `cargo xtask setup tch` fetches it; where one is \
             installed, LIBTORCH=DIR names it, and LIBTORCH_USE_PYTORCH=1 takes that of the Python on the path"
        })?;
    }
    // Cargo puts the new program in the place of this one, whose path is lost by then.
    let program = std::env::current_exe().context("this program's file is not known")?;
    eprintln!("building with the backend {name} where that has not been done (the first time takes minutes)");
    let mut build = cargo_with_libtorch("build")?;
    build.args(["--quiet", "--release", "--package", "xtask", "--features", name]);
    let status = build.status().context("cannot start cargo")?;
    ensure!(status.success(), "building with the backend {name} failed");
    let mut program = Command::new(program);
    program.env(BUILT_FOR, name).args(std::env::args_os().skip(1));
    Err(replace(program))
}

/// Ends this process in favour of another; returns if that cannot be started.
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
