use anyhow::Result;
use clap::{Args, Subcommand};
use pipeline::recipe::{json_schema, reference};

use crate::terminal::output::{print, print_json};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask recipe keys\n",
    "  cargo xtask recipe schema > schema.json   # then begin a recipe with `#:schema schema.json`",
);

/// Show what a recipe can say
///
/// The keys of recipes are explained in docs/recipes.md.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List every key with its type, its default and its meaning, as Markdown
    Keys,
    /// Print the JSON schema of recipes, with which editors complete and check them
    ///
    /// Taplo and the VS Code extension Even Better TOML read it where a recipe begins with a comment
    /// `#:schema PATH`.
    Schema,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        match self.what {
            What::Keys => {
                let sections: Vec<String> =
                    reference::sections().iter().map(reference::Section::markdown).collect();
                print(&sections.join("\n"))
            }
            What::Schema => print_json(json_schema()),
        }
    }
}
