//! Finds a Python that can run Hugging Face's T5.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::dev::resources::resource;

/// Prints which of its arguments cannot be imported, without importing them.
const PROBE: &str = "import importlib.util as u, sys; \
     missing = [name for name in sys.argv[1:] if u.find_spec(name) is None]; \
     sys.exit('it lacks ' + ' and '.join(missing) if missing else 0)";

const TRANSFORMERS: [&str; 2] = ["torch", "transformers"];

/// The requested Python, which must be suitable, or else that of `.ci/check-transformers` or the system's, if
/// suitable.
pub fn find(wanted: Option<&Path>) -> Result<Option<PathBuf>> {
    if let Some(python) = wanted {
        check(python, &TRANSFORMERS)
            .with_context(|| format!("--python {} cannot run transformers", python.display()))?;
        return Ok(Some(python.to_owned()));
    }
    let own = resource("target/python/bin/python").ok();
    Ok(own.into_iter().chain([PathBuf::from("python3")]).find(|python| check(python, &TRANSFORMERS).is_ok()))
}

/// A command for a Python, which has its own libraries and settings: what a bundle's launcher adds to the path,
/// and how long OpenMP's threads spin (`.cargo/config.toml`), is for this program.
pub fn call(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.env_remove("GOMP_SPINCOUNT");
    if let Some(path) = std::env::var_os("DEEP_FUSION_CALLERS_LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", path);
    }
    command
}

/// Whether that Python also has another module.
pub fn has(python: &Path, module: &str) -> bool {
    check(python, &[module]).is_ok()
}

fn check(python: &Path, modules: &[&str]) -> Result<()> {
    let output = call(python).args(["-c", PROBE]).args(modules).output().context("cannot start it")?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    match message.trim().lines().last() {
        Some(line) => bail!("{line}"),
        None => bail!("it ended with {}", output.status),
    }
}
