//! Warnings.

use serde::{Serialize, Serializer};

use crate::numbers::bytes;

/// What the user should know about a model. It states the fact; which flag or key would change it is up to
/// the caller.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Warning {
    /// What the plan of a fusion warns of.
    #[error(transparent)]
    Fusion(fusion_core::plan::Warning),
    /// This model's lineage.json (or that of the only one) was written for other weights.
    #[error("{} was written for other weights and is left out", lineage_of(model.as_deref()))]
    OtherWeights { model: Option<String> },
    /// A parent of a fusion has no tokenizer.
    #[error("{model} comes without a tokenizer: whether its tokens are the other parents' was not checked")]
    NoTokenizer { model: String },
    /// A model is evaluated on text that it was trained on.
    #[error(
        "documents of {file} are held out, but its model is also trained on them: it will look better than it is"
    )]
    TrainedOnHeldOut { file: String },
    /// Training will hardly fit in memory.
    #[error(
        "it needs about {} on {device}, which has {}; {}", bytes(*needed), bytes(*total), remedy(*fitting)
    )]
    Memory {
        device: String,
        /// Bytes.
        needed: f64,
        /// The device's memory in bytes.
        total: f64,
        /// The largest number of examples at a time that would fit, if any.
        fitting: Option<usize>,
    },
    /// The configuration was inferred from the weights' shapes.
    #[error("the configuration is made up from the weights' shapes")]
    MadeUpConfiguration,
    /// Tensors that a conversion leaves out.
    #[error("left out, since no T5 of this configuration has it: {}", tensors.join(", "))]
    LeftOut { tensors: Vec<String> },
    /// Files and folders that were found among the text but are not read, each with the reason.
    #[error("left out of the text: {}", shortened(files))]
    LeftOutText { files: Vec<String> },
    /// A child's lineage.json names other parents.
    #[error("{child} was not made from the weights of {parent}, says its lineage.json")]
    NotMadeFrom { child: String, parent: String },
}

fn lineage_of(model: Option<&str>) -> String {
    model.map_or("lineage.json".to_owned(), |model| format!("the lineage.json of {model}"))
}

/// The first few of many.
fn shortened(files: &[String]) -> String {
    const NAMED: usize = 5;
    let named = files.get(..NAMED).unwrap_or(files).join(", ");
    match files.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}

fn remedy(fitting: Option<usize>) -> String {
    match fitting {
        Some(examples) => format!("a micro_batch_size of {examples} would fit"),
        None => "not even one example would fit".to_owned(),
    }
}

/// Serialised as text.
impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
