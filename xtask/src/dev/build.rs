//! This program, built again: with a backend or devices that it was built without, or by its checks.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::dev::{libtorch, resources};

/// Cargo, in the workspace: from there it reads the flags of the workspace's builds.
pub fn cargo(command: &str) -> Result<Command> {
    let workspace = resources::sources(&format!("`cargo {command}`"))?;
    // `cargo run` tells which cargo runs it; built by hand, the one on the path will do.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(command).current_dir(workspace);
    // What `cargo run` says about this package. Build scripts watch it, and would run again whenever cargo is started from here.
    let about = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    for (name, _) in std::env::vars_os() {
        if about.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    Ok(cargo)
}

/// The same, for what builds all crates; it finds libtorch where that was fetched.
pub fn cargo_with_libtorch(command: &str) -> Result<Command> {
    let mut cargo = cargo(command)?;
    if let Some(libtorch) = libtorch::find()? {
        cargo.envs(libtorch.variables());
    }
    Ok(cargo)
}

/// Says how to get libtorch where there is none.
pub fn require_libtorch() -> Result<()> {
    let found = libtorch::find()?.with_context(|| {
        "the backend tch needs libtorch 2.11.0, and there is none: `cargo xtask setup tch` fetches it; where one is \
         installed, LIBTORCH=DIR names it, and LIBTORCH_USE_PYTORCH=1 takes that of the Python on the path"
    });
    found.map(drop)
}

/// A backend, or devices of one, that this program can have but was built without.
#[derive(Debug, PartialEq)]
pub struct Missing {
    pub backend: &'static str,
    /// What the names of its devices begin with, where only these are missing.
    pub devices: Option<&'static str>,
    /// The feature of this package.
    pub feature: &'static str,
    /// What it needs besides, for people.
    pub needs: &'static str,
}

impl Missing {
    /// Whether it is what a backend's name and a device's ask for.
    fn is(&self, backend: &str, device: Option<&str>) -> bool {
        let is_device =
            |devices: &str| device.is_some_and(|device| device.split(':').next() == Some(devices));
        self.backend == backend && self.devices.is_none_or(is_device)
    }
}

/// What the workspace has and this program has not.
pub fn missing() -> Vec<Missing> {
    let backend = |backend, needs| Missing { backend, devices: None, feature: backend, needs };
    let devices = |name, needs| Missing { backend: "burn", devices: Some(name), feature: name, needs };
    let all = [
        (cfg!(feature = "burn"), backend("burn", "nothing else")),
        (cfg!(feature = "wgpu"), devices("wgpu", "a driver of Vulkan, Metal or DirectX 12")),
        (cfg!(feature = "cuda"), devices("cuda", "CUDA; its build fetches LLVM from the network")),
        (cfg!(feature = "dfdx"), backend("dfdx", "nothing else")),
        (cfg!(feature = "tch"), backend("tch", "libtorch 2.11.0, see `cargo xtask setup tch`")),
    ];
    all.into_iter().filter_map(|(is_built, missing)| (!is_built).then_some(missing)).collect()
}

pub fn is_missing(backend: &str, device: Option<&str>) -> bool {
    missing().iter().any(|missing| missing.is(backend, device))
}

/// The features that this program was built with and that are none of the default ones.
fn extra_features() -> impl Iterator<Item = &'static str> {
    let all =
        [(cfg!(feature = "tch"), "tch"), (cfg!(feature = "wgpu"), "wgpu"), (cfg!(feature = "cuda"), "cuda")];
    all.into_iter().filter_map(|(is_built, feature)| is_built.then_some(feature))
}

/// The backend of that name, with the means for a device. A program that was built without is built with them, and then does
/// what this process was asked to do, in its place.
pub fn backend(name: &str, device: Option<&str>) -> Result<&'static dyn t5_model::Backend> {
    let Some(Missing { feature, .. }) = missing().into_iter().find(|missing| missing.is(name, device)) else {
        return Ok(t5_model::backend(name)?);
    };
    // Set for the process that takes this one's place: if it has not got them either, something is wrong.
    const BUILT_FOR: &str = "DEEP_FUSION_BUILT_FOR";
    let again = std::env::var_os(BUILT_FOR).is_some_and(|built| built == feature);
    ensure!(!again, "the program was built with the feature `{feature}` and does not have it");
    ensure!(
        !resources::is_bundle(),
        "this bundle was built without {feature}; `cargo xtask bundle --features {feature}` makes one with it"
    );
    if feature == "tch" {
        require_libtorch()?;
    }
    // Cargo puts the new program in the place of this one, whose path is lost by then.
    let program = std::env::current_exe().context("this program's file is not known")?;
    eprintln!("building with {feature} where that has not been done (the first time takes minutes)");
    let features: Vec<&str> = extra_features().chain([feature]).collect();
    let mut build = cargo_with_libtorch("build")?;
    build.args(["--quiet", "--release", "--package", "xtask", "--features", &features.join(",")]);
    let status = build.status().context("cannot start cargo")?;
    ensure!(status.success(), "building with {feature} failed");
    let mut program = Command::new(program);
    program.env(BUILT_FOR, feature).args(std::env::args_os().skip(1));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_features_of_one_backend() {
        assert_eq!(is_missing("burn", Some("wgpu:1")), !cfg!(feature = "wgpu"));
        assert_eq!(is_missing("burn", Some("cuda:0")), !cfg!(feature = "cuda"));
        assert_eq!(is_missing("tch", Some("cuda:0")), !cfg!(feature = "tch"));
        assert!(
            !is_missing("burn", Some("cpu"))
                && !is_missing("burn", None)
                && !is_missing("burn", Some("wgpux"))
        );
        assert!(!is_missing("dfdx", Some("wgpu:0")) && !is_missing("unknown", Some("wgpu:0")));
    }
}
