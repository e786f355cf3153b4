//! Advice on warnings and errors: they state the problem, this names the flag or recipe key that would fix
//! it.

use fusion_core::plan::Warning::{AbsentStaysZero, CopiesStayEqual, HalvesStayEqual, InexactNormalisation};
use pipeline::Warning;
use pipeline::problems::{Remedy, causes_with};

/// How the work was requested.
#[derive(Clone, Copy)]
pub enum Asked {
    ByFlags,
    ByRecipe,
}

impl Asked {
    /// A setting as the user would write it.
    fn setting(self, key: &str, value: &str) -> String {
        match self {
            Asked::ByFlags => format!("`--{key} {value}`"),
            Asked::ByRecipe => format!("`{key} = \"{value}\"`"),
        }
    }
}

/// A warning with advice.
pub fn with_advice(warning: &Warning, asked: Asked) -> String {
    let setting = |key, value| asked.setting(key, value);
    let noise = || setting("cross", "relative:0.01");
    let advice = match warning {
        Warning::MadeUpConfiguration => return format!("{warning} (see --config)"),
        Warning::Fusion(HalvesStayEqual { .. }) => format!(
            "Break the symmetry with {} (noise of 1 % of the weights'), or fuse two different models",
            noise()
        ),
        Warning::Fusion(CopiesStayEqual { .. }) => format!(
            "{} adds noise that cancels between copies, and {} gives them unequal shares",
            noise(),
            setting("method", "lemon")
        ),
        Warning::Fusion(InexactNormalisation) => format!("{} is exact", setting("norm", "property")),
        Warning::Fusion(AbsentStaysZero { .. }) => format!("{} lets them learn", noise()),
        _ => return warning.to_string(),
    };
    format!("{warning}. {advice}")
}

/// An error with its causes and the flag that would fix it.
pub fn causes(error: &anyhow::Error) -> String {
    causes_with(error, &|remedy| {
        Some(match remedy {
            Remedy::Tokenizer => "--tokenizer names one that lies elsewhere",
            Remedy::Configuration => "--config names one",
            Remedy::OtherConfiguration => "--config names a configuration",
            Remedy::Overwrite => "--overwrite replaces the checkpoint in it and keeps other files",
            Remedy::Redo => {
                "--redo replaces it and what follows from it, --output keeps it and begins elsewhere"
            }
        })
    })
}
