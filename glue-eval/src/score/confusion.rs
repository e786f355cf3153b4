//! Which class was answered where another was right.

use serde::{Deserialize, Serialize};

use crate::metrics::INVALID_CLASS;
use crate::task::{Answer, Task};

/// Counts of a set's references and predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    /// The evaluation set's name, empty where there is only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub set: String,
    /// `[reference][prediction]`, in the order of the label words; the last column counts invalid outputs.
    pub counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// Of `(reference, prediction)` pairs.
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

    /// Aligned columns: a row for each reference, a column for each prediction.
    pub fn text(&self, task: Task) -> String {
        let Answer::Class { words, .. } = &task.spec().answer else { return String::new() };
        let title = if self.set.is_empty() { task.to_string() } else { format!("{task} {}", self.set) };
        let mut lines = vec![vec![title]];
        lines[0].extend(words.iter().map(|word| format!("→ {word}")));
        lines[0].push("→ invalid".to_owned());
        for (word, counts) in words.iter().zip(&self.counts) {
            let counts = counts.iter().map(usize::to_string);
            lines.push(std::iter::once((*word).to_owned()).chain(counts).collect());
        }
        crate::report::table::aligned(&lines)
    }
}
