//! Locates this program's own files: references, recipes, Python scripts. A bundle contains a part of the
//! source tree, so paths are the same in both.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Result, bail, ensure};

/// The file that marks a bundle's root and records how its program was built.
pub const BUNDLE: &str = "bundle.toml";

/// The references for the conformance suite.
pub const REFERENCES: &str = "t5-model/src/conformance/goldens";
/// The scripts that let transformers take part in benches.
pub const SCRIPTS: &str = "xtask/src/dev/bench/scripts";

enum Root {
    /// The sources this program was built from and lies in.
    Sources(PathBuf),
    Bundle(PathBuf),
    /// Somewhere else on this machine, by `cargo install` or a copy; and the sources it was built from, which
    /// may be gone or have changed.
    Installed(PathBuf),
}

static ROOT: LazyLock<Root> = LazyLock::new(|| {
    // In a bundle, the program has its own folder, out of the user's way.
    let program = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(Path::parent).and_then(Path::parent);
    match folder.filter(|folder| folder.join(BUNDLE).is_file()) {
        Some(folder) => Root::Bundle(folder.to_owned()),
        None => {
            let package = Path::new(env!("CARGO_MANIFEST_DIR"));
            let sources = package.parent().unwrap_or(package).to_owned();
            // Where cargo builds, it keeps what it knows of builds beside the program.
            let built_here =
                program.as_deref().is_none_or(|program| program.with_file_name(".fingerprint").is_dir());
            if built_here { Root::Sources(sources) } else { Root::Installed(sources) }
        }
    }
});

/// A file or folder by its path in the source tree.
///
/// # Errors
/// If the program was installed, and the sources are gone.
pub fn resource(path: &str) -> Result<PathBuf> {
    let (Root::Sources(root) | Root::Bundle(root) | Root::Installed(root)) = &*ROOT;
    let found = root.join(path);
    if let Root::Installed(sources) = &*ROOT {
        let place = sources.display();
        ensure!(found.exists(), "this needs {path} of the source tree, which is no longer in {place}");
    }
    Ok(found)
}

pub fn is_bundle() -> bool {
    matches!(*ROOT, Root::Bundle(_))
}

/// Whether the program lies where it was built, so that `cargo xtask` runs it.
pub fn is_in_checkout() -> bool {
    matches!(*ROOT, Root::Sources(_))
}

/// The command line that these arguments came from, as its user would repeat it.
pub fn command(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let program: &[&str] = if is_in_checkout() { &["cargo", "xtask"] } else { &["deep-fusion"] };
    program.iter().map(|word| (*word).to_owned()).chain(arguments.skip(1)).collect()
}

/// The source tree, for tasks that neither a bundle nor an installed program can perform.
pub fn sources(purpose: &str) -> Result<&'static Path> {
    match &*ROOT {
        Root::Sources(root) => Ok(root),
        Root::Bundle(_) => bail!("this is a bundle; {purpose} needs the source tree"),
        Root::Installed(sources) => bail!(
            "this program was installed; {purpose} needs the source tree, where `cargo xtask` runs it (it was built from {})",
            sources.display()
        ),
    }
}
