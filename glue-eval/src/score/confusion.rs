//! Which class was answered when which one was right.

use serde::{Deserialize, Serialize};

use crate::metrics::INVALID_CLASS;

/// How often each class of a set was answered with each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    /// The evaluation set's name; empty if there is only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub set: String,
    /// `[reference][prediction]`, in the order of the label words. The last column counts invalid outputs.
    pub counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// Counts `(reference, prediction)` pairs.
    pub fn new(set: &str, classes: usize, pairs: &[(i32, i32)]) -> Self {
        let mut counts = vec![vec![0; classes + 1]; classes];
        let column = |prediction: i32| match prediction {
            INVALID_CLASS => classes,
            class => usize::try_from(class).unwrap_or(classes).min(classes),
        };
        for &(reference, prediction) in pairs {
            let row = usize::try_from(reference).ok().and_then(|class| counts.get_mut(class));
            if let Some(count) = row.and_then(|row| row.get_mut(column(prediction))) {
                *count += 1;
            }
        }
        Confusion { set: set.to_owned(), counts }
    }
}
