//! The commands, one module each.

mod backends;
mod check;
mod completions;
pub mod compute;
mod convert;
mod data;
mod evaluate;
mod export;
mod forward;
mod fuse;
mod generate;
mod glue;
mod inspect;
mod man;
mod pretrain;
mod recipe;
mod report;
mod run;
mod section;
mod text;
mod tokenizer;
mod verify;

use std::ffi::OsString;
use std::sync::LazyLock;

use anyhow::{Result, ensure};
use clap::builder::StyledStr;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::dev::{bench, bundle, ci, conformance, feature, resources, setup};
use crate::ranks::{self, launch};
use crate::terminal::volume::Volume;

/// How the program is called in its sources, and so in all help.
const IN_CHECKOUT: &str = "cargo xtask";
/// The program's own name.
pub const NAME: &str = "deep-fusion";

/// Grow language models: pretrain small T5s, fuse them into a larger one, train it further, and score it.
///
/// A recipe describes a whole experiment; `cargo xtask run recipes/quickstart.toml` runs one. The other
/// commands each perform a single step, and read and write Hugging Face checkpoints.
#[derive(Debug, Parser)]
#[command(
    name = IN_CHECKOUT,
    bin_name = IN_CHECKOUT,
    max_term_width = 100,
    version,
    long_version = LONG_VERSION.as_str()
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Build what the command needs and this program lacks, without asking
    #[arg(long, global = true, help_heading = "Global options")]
    build: bool,
    #[command(flatten)]
    volume: Volume,
}

/// The version, and what it was built with.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let built = feature::FEATURES.iter().filter(|feature| feature.is_built).map(|feature| feature.name);
    let built = built.collect::<Vec<_>>().join(", ");
    format!("{}\nbuilt with {built}", env!("CARGO_PKG_VERSION"))
});

/// How the user calls this program.
pub fn program() -> &'static str {
    if resources::is_in_checkout() { IN_CHECKOUT } else { NAME }
}

/// The command line, under the name by which the program is called.
fn command(name: &'static str) -> clap::Command {
    let command = Cli::command();
    if name == IN_CHECKOUT { command } else { renamed(command.name(name).bin_name(name), name) }
}

/// A command whose help calls the program by this name.
fn renamed(mut command: clap::Command, name: &str) -> clap::Command {
    let said = |text: &StyledStr| text.to_string().replace(IN_CHECKOUT, name);
    if let Some(text) = command.get_about().map(said) {
        command = command.about(text);
    }
    if let Some(text) = command.get_long_about().map(said) {
        command = command.long_about(text);
    }
    if let Some(text) = command.get_after_help().map(said) {
        command = command.after_help(text);
    }
    let renamed_arg = |arg: clap::Arg| {
        let (help, long) = (arg.get_help().map(said), arg.get_long_help().map(said));
        let arg = if let Some(help) = help { arg.help(help) } else { arg };
        if let Some(long) = long { arg.long_help(long) } else { arg }
    };
    command.mut_args(renamed_arg).mut_subcommands(|command| renamed(command, name))
}

/// The flag that sets a setting, by the setting's key.
pub fn flag(key: &str) -> Option<String> {
    let command = Cli::command();
    let mut all = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let argument = all.find(|argument| argument.get_id() == key && argument.get_long().is_some())?;
    argument.get_long().map(|long| format!("--{long}"))
}

impl Cli {
    /// Reads the command line; shows help or what is wrong with it, and ends the process.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut command = command(program());
        let matches = command.try_get_matches_from_mut(arguments);
        let cli = matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
        cli.unwrap_or_else(|error| error.format(&mut command).exit())
    }

    /// Whether what is missing may be built without asking.
    pub fn may_build(&self) -> bool {
        self.build
    }

    /// Refuses a command that several processes would all do by themselves.
    pub fn check_together(&self) -> Result<()> {
        use Command::{Data, Evaluate, Glue, Pretrain, Run};
        let is_shared = match &self.command {
            Data(arguments) => arguments.is_shared(),
            command => matches!(command, Evaluate(_) | Glue(_) | Pretrain(_) | Run(_)),
        };
        ensure!(
            is_shared,
            "only run, pretrain, evaluate, glue and data tokenize compute in several processes together"
        );
        Ok(())
    }

    /// Whether what is asked for is in a recipe rather than in flags.
    pub fn is_recipe(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }
}

macro_rules! commands {
    ($($name:ident: $module:ident,)+) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($name($module::Arguments),)+
        }

        impl Cli {
            pub fn run(self) -> Result<()> {
                self.volume.set();
                if ranks::place().is_some() {
                    self.check_together()?;
                }
                match self.command {
                    $(Command::$name(arguments) => arguments.run(),)+
                }
            }
        }
    };
}

// In the order in which the help lists them.
commands! {
    Run: run,
    Recipe: recipe,
    Pretrain: pretrain,
    Fuse: fuse,
    Check: check,
    Evaluate: evaluate,
    Glue: glue,
    Launch: launch,
    Data: data,
    Tokenizer: tokenizer,
    Generate: generate,
    Verify: verify,
    Inspect: inspect,
    Export: export,
    Convert: convert,
    Forward: forward,
    Report: report,
    Backends: backends,
    Setup: setup,
    Completions: completions,
    Man: man,
    Conformance: conformance,
    Bench: bench,
    Bundle: bundle,
    Ci: ci,
}
