use anyhow::Result;
use clap::Args;
use clap_complete::{Shell, generate};

use crate::cli::{NAME, command};
use crate::terminal::output::print;

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  deep-fusion completions bash > ~/.local/share/bash-completion/completions/deep-fusion\n",
    "  deep-fusion completions zsh > \"${fpath[1]}/_deep-fusion\"\n",
    "  deep-fusion completions fish > ~/.config/fish/completions/deep-fusion.fish",
);

/// Print a shell's completions of the installed program
///
/// They complete commands, flags and their values for `deep-fusion`, which `cargo install --path xtask` installs.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[arg(value_enum)]
    shell: Shell,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let mut script = Vec::new();
        generate(self.shell, &mut command(NAME), NAME, &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
