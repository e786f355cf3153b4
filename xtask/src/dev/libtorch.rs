//! Finds libtorch for the backend tch, or fetches it through pip, whose Linux builds are the ones that need
//! no GPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use pipeline::Stoppable;

use crate::dev::resources;
use crate::terminal::{Terminal, interrupt};

const VERSION: &str = "2.11.0";

/// Where libtorch is.
pub enum Libtorch {
    /// Set by the user in the environment.
    Environment,
    /// [`install`]ed in this directory.
    Installed(PathBuf),
}

impl Libtorch {
    /// Environment variables for the build.
    pub fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        match self {
            Libtorch::Environment => vec![],
            Libtorch::Installed(directory) => vec![("LIBTORCH", directory.join("torch"))],
        }
    }
}

/// The user's libtorch, or the one that was fetched.
pub fn find() -> Result<Option<Libtorch>> {
    // `.cargo/config.toml` sets the default location for whatever cargo runs.
    let (named, default) = (std::env::var_os("LIBTORCH").map(PathBuf::from), directory()?);
    if let Some(directory) = named.filter(|named| *named != default.join("torch")) {
        let place = directory.display();
        ensure!(directory.join("lib").is_dir(), "LIBTORCH is {place}, but there is no {place}/lib");
        return Ok(Some(Libtorch::Environment));
    }
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        return Ok(Some(Libtorch::Environment));
    }
    Ok(default.join("torch/lib").is_dir().then_some(Libtorch::Installed(default)))
}

/// The same location as in `.cargo/config.toml`, regardless of where builds go.
fn directory() -> Result<PathBuf> {
    Ok(resources::sources("a libtorch to build with")?.join("target/libtorch"))
}

/// Fetches libtorch, if there is none.
pub fn install() -> Result<Libtorch> {
    if let Some(found) = find()? {
        return Ok(found);
    }
    let directory = directory()?;
    let parent = directory.parent().context("a directory in the workspace has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    // Installed next to its final location and renamed, so that a broken download is never taken for
    // libtorch.
    let partial = tempfile::Builder::new().prefix("libtorch-").tempdir_in(parent);
    let partial = partial.with_context(|| format!("cannot create a directory in {}", parent.display()))?;
    eprintln!("fetching libtorch {VERSION} into {} (half a gigabyte; 1.5 on disk)", directory.display());
    // Ctrl-C reaches pip as well; this process stays to clean up after it.
    interrupt::listen()?;
    let graceful = Stoppable::new(&Terminal);
    let fetched = pip(partial.path());
    drop(graceful);
    interrupt::check("libtorch was not fetched, and nothing was left behind")?;
    fetched?;
    ensure!(partial.path().join("torch/lib").is_dir(), "pip ended well, but installed no torch/lib");
    let partial = partial.keep();
    fs::rename(&partial, &directory)
        .with_context(|| format!("cannot rename {} to {}", partial.display(), directory.display()))?;
    Ok(Libtorch::Installed(directory))
}

fn pip(target: &Path) -> Result<()> {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]);
    pip.arg("--target").arg(target).arg(format!("torch=={VERSION}"));
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        // libtorch links these two even where there is no GPU; what it loads only for a GPU is left out.
        pip.args(["nvidia-cuda-cupti==13.0.85", "nvidia-cuda-runtime==13.0.96"]);
    }
    let python = python.to_string_lossy();
    let status = pip.status().with_context(|| {
        format!("cannot start {python}: fetching libtorch takes Python 3 with pip (PYTHON names another one)")
    })?;
    if !status.success() {
        bail!("`{python} -m pip install torch=={VERSION}` ended with {status}; nothing was left behind");
    }
    Ok(())
}
