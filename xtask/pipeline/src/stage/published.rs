//! What others have published of a model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Figures from elsewhere, each of which may be left out.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Where they are from, such as `Table 1`.
    pub source: String,
    /// The mean cross-entropy of a target token on held-out text, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Token accuracy on held-out text, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// The average over GLUE's tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glue: Option<f64>,
}

impl Published {
    /// The figures with what they are.
    pub fn figures(&self) -> impl Iterator<Item = (Figure, f64)> {
        let all = [(Figure::Loss, self.loss), (Figure::Accuracy, self.accuracy), (Figure::Glue, self.glue)];
        all.into_iter().filter_map(|(figure, value)| Some((figure, value?)))
    }
}

/// What is measured of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the keys of `Published` say what they are")]
pub enum Figure {
    Loss,
    Accuracy,
    Glue,
}

impl Figure {
    /// As tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Loss => "loss",
            Figure::Accuracy => "accuracy, %",
            Figure::Glue => "GLUE",
        }
    }

    /// Digits after the decimal point that tables show.
    pub fn digits(self) -> usize {
        if self == Figure::Loss { 4 } else { 2 }
    }
}
