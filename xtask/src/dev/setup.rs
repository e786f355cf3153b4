use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::dev::libtorch::{Libtorch, install};
use crate::dev::resources;
use crate::terminal::output::print;

const EXAMPLES: &str =
    concat!("Examples:\n", "  cargo xtask setup tch\n", "  cargo xtask pretrain --backend tch …",);

/// Fetch what a backend needs besides Rust
///
/// For tch this is libtorch 2.11.0, through pip, into the folder `target/libtorch`, where every later command finds it.
/// It is not needed where LIBTORCH names a libtorch of that version, or LIBTORCH_USE_PYTORCH=1 asks for that of the Python
/// on the path. The other backends need nothing.
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
            Libtorch::Environment => print("the environment says where libtorch is: nothing to do\n"),
            Libtorch::Installed(directory) => print(&format!("libtorch is in {}\n", directory.display())),
        }
    }
}
