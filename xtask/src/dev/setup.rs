use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::dev::libtorch::{Libtorch, install};
use crate::dev::resources;
use crate::terminal::output::print;

const EXAMPLES: &str =
    concat!("Examples:\n", "  cargo xtask setup tch\n", "  cargo xtask pretrain --backend tch …",);

/// Fetch what a backend needs in addition to Rust
///
/// For tch, this downloads libtorch 2.11.0 through pip into the folder `target/libtorch`, where all later
/// commands find it. It is not needed if LIBTORCH names a libtorch of that version, or if
/// LIBTORCH_USE_PYTORCH=1 selects that of the Python on the path. The other backends need nothing.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[arg(value_enum)]
    backend: Backend,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Backend {
    Tch,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let Backend::Tch = self.backend;
        resources::sources("`setup`")?;
        match install()? {
            Libtorch::Environment => print("libtorch is set in the environment: nothing to do\n"),
            Libtorch::Installed(directory) => print(&format!("libtorch is in {}\n", directory.display())),
        }
    }
}
