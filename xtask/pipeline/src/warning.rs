//! Warnings.

use serde::{Serialize, Serializer};

use crate::numbers::bytes;

/// What the author of a model should know. It says what is so; which flag or key would change it is the caller's to say.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Warning {
    #[error(transparent)]
    Fusion(fusion_core::plan::Warning),
    /// The lineage.json of this model, or else of the only one, was written for other weights.
    #[error("{} was written for other weights and is left out", lineage_of(model.as_deref()))]
    OtherWeights { model: Option<String> },
    /// A parent of a fusion has no tokenizer.
    #[error("{model} comes without a tokenizer: whether its tokens are the other parents' was not checked")]
    NoTokenizer { model: String },
    /// A training that will hardly fit.
    #[error(
        "it needs about {} on {device}, which has {}; {}", bytes(*needed), bytes(*total), remedy(*fitting)
    )]
    Memory {
        device: String,
        /// Bytes.
        needed: f64,
        /// Bytes of the device.
        total: f64,
        /// The most examples at a time that would fit, if any do.
        fitting: Option<usize>,
    },
    /// There was no configuration but in the weights' shapes.
    #[error("the configuration is made up from the weights' shapes")]
    MadeUpConfiguration,
    /// Tensors that a conversion leaves out.
    #[error("left out, since no T5 of this configuration has it: {}", tensors.join(", "))]
    LeftOut { tensors: Vec<String> },
    /// A child's lineage.json knows other parents.
    #[error("{child} was not made from the weights of {parent}, says its lineage.json")]
    NotMadeFrom { child: String, parent: String },
}

fn lineage_of(model: Option<&str>) -> String {
    model.map_or("lineage.json".to_owned(), |model| format!("the lineage.json of {model}"))
}

fn remedy(fitting: Option<usize>) -> String {
    match fitting {
        Some(examples) => format!("a micro_batch_size of {examples} would fit"),
        None => "not even one example would fit".to_owned(),
    }
}

/// As text.
impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
