//! Answers to a test set in the format of GLUE's server: a header, and a line with `index` and `prediction` per row.

use std::fmt::Write;

use crate::answer::Prompts;
use crate::score::Prediction;
use crate::task::{Answer, EvaluationSet, Task};

/// The file's name.
pub(crate) fn name(task: Task, set: &EvaluationSet) -> String {
    let set = match set.name {
        "" => "",
        "matched" => "-m",
        _ => "-mm",
    };
    format!("{task}{set}.tsv")
}

/// The file's text. The server requires an answer, so an invalid output becomes the first class, or the score 0.
pub(crate) fn file(prompts: &Prompts<'_>, predictions: &[Prediction]) -> String {
    let mut text = "index\tprediction\n".to_owned();
    for (example, prediction) in prompts.examples.iter().zip(predictions) {
        let _ = match &prompts.task.spec().answer {
            Answer::Class { values, words, .. } => {
                let class = usize::try_from(prediction.class(words)).unwrap_or(0);
                writeln!(text, "{}\t{}", example.index, values[class])
            }
            Answer::Score { .. } => {
                writeln!(text, "{}\t{:.3}", example.index, prediction.score().clamp(0.0, 5.0))
            }
        };
    }
    text
}
