//! Warnings.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::numbers::bytes;

/// What the author of a model should know. It says what is so; which flag or key would change it is the caller's to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Warning {
    Fusion(fusion_core::plan::Warning),
    /// The lineage.json of this model, or else of the only one, was written for other weights.
    OtherWeights {
        model: Option<String>,
    },
    /// A parent of a fusion has no tokenizer.
    NoTokenizer {
        model: String,
    },
    /// A training that will hardly fit.
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
    MadeUpConfiguration,
    /// Tensors that a conversion leaves out.
    LeftOut {
        tensors: Vec<String>,
    },
    /// A child's lineage.json knows other parents.
    NotMadeFrom {
        child: String,
        parent: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Fusion(warning) => warning.fmt(f),
            Warning::OtherWeights { model: None } => {
                f.write_str("lineage.json was written for other weights and is left out")
            }
            Warning::OtherWeights { model: Some(model) } => {
                write!(f, "the lineage.json of {model} was written for other weights and is left out")
            }
            Warning::NoTokenizer { model } => write!(
                f,
                "{model} comes without a tokenizer: whether its tokens are the other parents' was not checked"
            ),
            Warning::Memory { device, needed, total, fitting } => {
                let [needed, total] = [*needed, *total].map(bytes);
                write!(f, "it needs about {needed} on {device}, which has {total}; ")?;
                match fitting {
                    Some(examples) => write!(f, "a micro_batch_size of {examples} would fit"),
                    None => f.write_str("not even one example would fit"),
                }
            }
            Warning::MadeUpConfiguration => {
                f.write_str("the configuration is made up from the weights' shapes")
            }
            Warning::LeftOut { tensors } => {
                write!(f, "left out, since no T5 of this configuration has it: {}", tensors.join(", "))
            }
            Warning::NotMadeFrom { child, parent } => {
                write!(f, "{child} was not made from the weights of {parent}, says its lineage.json")
            }
        }
    }
}

/// As text.
impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
