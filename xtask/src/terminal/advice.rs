//! What to do about warnings: they say what is so, this names the flag or the recipe's key that would change it.

use fusion_core::plan::Warning::{AbsentStaysZero, CopiesStayEqual, HalvesStayEqual, InexactNormalisation};
use pipeline::Warning;

/// How the work was asked for.
#[derive(Clone, Copy)]
pub enum Asked {
    ByFlags,
    ByRecipe,
}

impl Asked {
    /// A setting as it would be written.
    fn setting(self, key: &str, value: &str) -> String {
        match self {
            Asked::ByFlags => format!("`--{key} {value}`"),
            Asked::ByRecipe => format!("`{key} = \"{value}\"`"),
        }
    }
}

/// A warning with what to do about it.
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
