//! Locates this program's own files: references, recipes, Python scripts. A bundle contains a part of the
//! source tree, so paths are the same in both.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Result, bail};

/// The file that marks a bundle's root and records how its program was built.
pub const BUNDLE: &str = "bundle.toml";

/// The references for the conformance suite.
pub const REFERENCES: &str = "t5-model/src/conformance/goldens";
/// The scripts that let transformers take part in benches.
pub const SCRIPTS: &str = "xtask/src/dev/bench/scripts";

enum Root {
    /// The sources this program was built from, on the same machine.
    Sources(PathBuf),
    Bundle(PathBuf),
}

static ROOT: LazyLock<Root> = LazyLock::new(|| {
    // In a bundle, the program has its own folder, out of the user's way.
    let program = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(Path::parent).and_then(Path::parent);
    match folder.filter(|folder| folder.join(BUNDLE).is_file()) {
        Some(folder) => Root::Bundle(folder.to_owned()),
        None => {
            let package = Path::new(env!("CARGO_MANIFEST_DIR"));
            Root::Sources(package.parent().unwrap_or(package).to_owned())
        }
    }
});

/// A file or folder by its path in the source tree.
pub fn resource(path: &str) -> PathBuf {
    let (Root::Sources(root) | Root::Bundle(root)) = &*ROOT;
    root.join(path)
}

pub fn is_bundle() -> bool {
    matches!(*ROOT, Root::Bundle(_))
}

/// The source tree, for tasks that a bundle cannot perform.
pub fn sources(purpose: &str) -> Result<&'static Path> {
    match &*ROOT {
        Root::Sources(root) => Ok(root),
        Root::Bundle(_) => bail!("this is a bundle; {purpose} needs the source tree"),
    }
}
