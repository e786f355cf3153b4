//! The answer to every example, for error analysis: one JSON object per line.

use serde::Serialize;

use crate::answer::Prompts;
use crate::data::Label;
use crate::prompt::{input_text, target_text};
use crate::score::Prediction;
use crate::task::Answer;

#[derive(Serialize)]
struct Line<'a> {
    /// The evaluation set's name, if the task has several.
    #[serde(skip_serializing_if = "str::is_empty")]
    set: &'a str,
    /// See [`Example::index`](crate::data::Example::index).
    index: u64,
    input: String,
    target: Option<String>,
    output: &'a str,
    /// Whether the output answers the task at all.
    valid: bool,
    /// Whether the class is the right one, if the task has classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    correct: Option<bool>,
}

/// The lines of a task's sets.
pub(crate) fn lines(prompts: &[Prompts<'_>], sets: &[Vec<Prediction>]) -> String {
    let mut text = String::new();
    for (number, (prompts, predictions)) in prompts.iter().zip(sets).enumerate() {
        let spec = prompts.task.spec();
        for (example, prediction) in prompts.examples.iter().zip(predictions) {
            let correct = match (&spec.answer, prediction.label) {
                (Answer::Class { words, .. }, Some(Label::Class(right))) => {
                    Some(usize::try_from(prediction.class(words)) == Ok(right))
                }
                _ => None,
            };
            let line = Line {
                set: spec.evaluation_sets[number].name,
                index: example.index,
                input: input_text(prompts.task, example),
                target: example.label.and_then(|label| target_text(prompts.task, label)),
                output: &prediction.output,
                valid: prediction.is_valid(&spec.answer),
                correct,
            };
            text += &serde_json::to_string(&line).unwrap_or_default();
            text.push('\n');
        }
    }
    text
}
