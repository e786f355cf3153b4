//! Advice on warnings and errors: they state the problem, this names the flag or recipe key that would fix
//! it.

use std::error::Error;

use fusion_core::plan::Warning::{AbsentStaysZero, CopiesStayEqual, HalvesStayEqual, InexactNormalisation};
use glue_eval::GlueError;
use pipeline::Warning;
use pipeline::problems::{Remedy, Wording, causes_with};
use t5_model::method::SettingsError;
use t5_model::train::TrainError;

use crate::cli::flag;

/// How the work was requested.
#[derive(Clone, Copy)]
pub enum Asked {
    ByFlags,
    ByRecipe,
}

impl Asked {
    /// A setting as the user would write it.
    pub(super) fn setting(self, key: &str, value: &str) -> String {
        match self {
            Asked::ByFlags => format!("`--{} {value}`", key.replace('_', "-")),
            Asked::ByRecipe if value.parse::<u64>().is_ok() => format!("`{key} = {value}`"),
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
        Warning::Rounded { .. } => format!("{} rounds nothing that shows", setting("dtype", "f32")),
        Warning::NotFollowed { keys, .. } => {
            let flag = |(key, _): &(&'static str, _)| match *key {
                "num_beams" => Some("--beams"),
                "do_sample" => Some("--sample"),
                "num_return_sequences" => Some("--answers"),
                _ => None,
            };
            let flags: Vec<&str> = keys.iter().filter_map(flag).collect();
            if flags.is_empty() {
                return warning.to_string();
            }
            format!("{} can", flags.join(" and "))
        }
        Warning::Memory { fitting, .. } => {
            let fits = match fitting {
                Some(examples) => format!("{} would fit", setting("micro_batch_size", &examples.to_string())),
                None => "Not even one example at a time would fit".to_owned(),
            };
            format!("{fits}; `--checkpoint-activations` needs less, too, for a third more computation")
        }
        _ => return warning.to_string(),
    };
    format!("{warning}. {advice}")
}

/// An error with its causes, in the terms of flags or of a recipe, and what would fix it.
pub fn causes(error: &anyhow::Error, asked: Asked) -> String {
    causes_with(error, &asked)
}

impl Wording for Asked {
    fn remedy(&self, remedy: Remedy) -> Option<&'static str> {
        Some(match remedy {
            Remedy::Tokenizer => "--tokenizer names one that lies elsewhere",
            Remedy::Configuration => "--config names one",
            Remedy::OtherConfiguration => "--config names a configuration",
            Remedy::Overwrite => "--overwrite replaces what is in it",
            Remedy::Redo => {
                "--redo replaces it and what follows from it, --output keeps it and begins elsewhere"
            }
        })
    }

    /// Settings are called by the flags that set them.
    fn message(&self, error: &(dyn Error + 'static)) -> Option<String> {
        if matches!(self, Asked::ByRecipe) {
            return None;
        }
        if let Some(error) = error.downcast_ref::<SettingsError>() {
            return Some(in_flags(&error.to_string()));
        }
        let model = error.downcast_ref().and_then(|error| match error {
            t5_model::Error::Setting { key, problem } => Some((*key, problem)),
            _ => None,
        });
        let training = error.downcast_ref().and_then(|error| match error {
            TrainError::Setting { key, problem } => Some((*key, problem)),
            _ => None,
        });
        let fine_tuning = error.downcast_ref().and_then(|error| match error {
            GlueError::Setting { name, problem } => Some((*name, problem)),
            _ => None,
        });
        let (key, problem) = model.or(training).or(fine_tuning)?;
        let problem = in_flags(problem);
        match problem.starts_with("--") {
            // Of a group of settings, the problem names the one.
            true => Some(problem),
            false => Some(format!("{}: {problem}", flag(key).unwrap_or_else(|| key.to_owned()))),
        }
    }
}

/// A message with settings as flags: those in backticks, those of several words, and one at the start.
fn in_flags(message: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut text, mut rest) = (String::new(), message);
    while let Some(start) = rest.find(is_part) {
        let (before, word) = rest.split_at(start);
        let (word, after) = word.split_at(word.find(|c| !is_part(c)).unwrap_or(word.len()));
        let names = word.contains('_') || before.ends_with('`') || text.is_empty() && before.is_empty();
        text += before;
        match flag(word).filter(|_| names) {
            Some(flag) => text += &flag,
            None => text += word,
        }
        rest = after;
    }
    text + rest
}
