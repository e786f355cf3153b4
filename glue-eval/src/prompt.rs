//! Examples as text, the way T5 reads and answers them (`t5.data.preprocessors.glue` and `stsb`, and their
//! postprocessors).

use crate::data::{Example, Label};
use crate::metrics::{INVALID_CLASS, INVALID_SCORE};
use crate::task::{Answer, Task};

/// The prompt: `mrpc sentence1: … sentence2: …`.
pub fn input_text(task: Task, example: &Example) -> String {
    let spec = task.spec();
    let mut text = spec.name.to_owned();
    for (field, value) in spec.fields.iter().zip(&example.texts) {
        text.push(' ');
        text.push_str(field.prompt);
        text.push_str(": ");
        text.push_str(value);
    }
    text
}

/// The target: the label's word, or a score in steps of 0.2. `None` for a label that the task does not have.
pub fn target_text(task: Task, label: Label) -> Option<String> {
    match (&task.spec().answer, label) {
        (Answer::Class { words, .. }, Label::Class(class)) => words.get(class).map(|&word| word.to_owned()),
        (Answer::Score { .. }, Label::Score(score)) => Some(score_text(score)),
        _ => None,
    }
}

/// `round(score × 5) / 5` with one decimal, halves to even in single precision, as TensorFlow rounds: 2.5 is `2.4`.
pub fn score_text(score: f32) -> String {
    format!("{:.1}", (score * 5.0).round_ties_even() / 5.0)
}

/// Every possible target of a task: its label words in index order, or the scores from 0.0 to 5.0 in steps of 0.2.
pub fn possible_answers(task: Task) -> Vec<String> {
    match &task.spec().answer {
        Answer::Class { words, .. } => words.iter().map(|&word| word.to_owned()).collect(),
        Answer::Score { .. } => (0..=25_u8).map(|fifths| score_text(f32::from(fifths) / 5.0)).collect(),
    }
}

/// The index of the label word that the output matches exactly, else [`INVALID_CLASS`].
pub fn parse_class(words: &[&str], output: &str) -> i32 {
    let index = words.iter().position(|&word| word == output);
    index.and_then(|index| i32::try_from(index).ok()).unwrap_or(INVALID_CLASS)
}

/// Whether a valid answer begins with the text. Any beginning of a number is a number itself, or with one more digit.
pub fn may_become_answer(task: Task, text: &str) -> bool {
    match &task.spec().answer {
        Answer::Class { words, .. } => words.iter().any(|word| word.starts_with(text)),
        Answer::Score { .. } => {
            let is_number = |text: &str| text.trim().parse::<f64>().is_ok();
            is_number(text) || is_number(&format!("{text}0"))
        }
    }
}

/// The number that the output spells, else [`INVALID_SCORE`]. Unlike Python's `float`, which T5 uses, infinity and
/// NaN are not numbers here: a single one would leave both correlations undefined.
pub fn parse_score(output: &str) -> f64 {
    output.trim().parse::<f64>().ok().filter(|score| score.is_finite()).unwrap_or(INVALID_SCORE)
}
