use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_mangen::Man;
use fusion_core::atomic::write_file_atomically;

use crate::cli::{NAME, command};
use crate::terminal::output::print;

const EXAMPLES: &str =
    concat!("Example:\n", "  deep-fusion man --output ~/.local/share/man/man1 && man deep-fusion-fuse",);

/// Write man pages of the installed program
///
/// One for `deep-fusion`, which `cargo install --path xtask` installs, and one for each of its commands.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder to write to; other files in it are kept
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let mut all = command(NAME).disable_help_subcommand(true);
        all.build();
        let pages = write(all, &self.output)?;
        print(&format!("{pages} pages written to {}\n", self.output.display()))
    }
}

/// The pages of a command and of those below it; returns how many there are.
fn write(command: Command, folder: &Path) -> Result<usize> {
    let mut pages = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages += write(below.clone(), folder)?;
    }
    let page = Man::new(command);
    let path = folder.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text).with_context(|| format!("cannot write {}", path.display()))?;
    write_file_atomically(&path, &text)?;
    Ok(pages)
}
