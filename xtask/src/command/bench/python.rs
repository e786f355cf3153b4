//! A Python that can run Hugging Face's T5.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Says what cannot be imported, without importing it.
const PROBE: &str = "import importlib.util as u, sys; \
     missing = [name for name in ('torch', 'transformers') if u.find_spec(name) is None]; \
     sys.exit('it lacks ' + ' and '.join(missing) if missing else 0)";

/// The one that is wanted, which must do; or else that of `.ci/check-transformers`, or the system's, if they do.
pub fn find(wanted: Option<&Path>) -> Result<Option<PathBuf>> {
    if let Some(python) = wanted {
        check(python).with_context(|| format!("--python {} cannot run transformers", python.display()))?;
        return Ok(Some(python.to_owned()));
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    Ok([own, PathBuf::from("python3")].into_iter().find(|python| check(python).is_ok()))
}

fn check(python: &Path) -> Result<()> {
    let output = Command::new(python).args(["-c", PROBE]).output().context("cannot start it")?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    match message.trim().lines().last() {
        Some(line) => bail!("{line}"),
        None => bail!("it ended with {}", output.status),
    }
}
