//! Greedy answers to a task's development sets.

use std::cmp::Reverse;

use t5_model::Session;

use crate::batch::{Encoded, Encoder};
use crate::error::GlueError;
use crate::files::{Example, Label};
use crate::score::{Prediction, TaskScore};

/// A development set, tokenised once and answered at every evaluation.
pub(crate) struct EvaluationExamples {
    inputs: Vec<Encoded>,
    labels: Vec<Label>,
    /// Positions from the longest input to the shortest, so that a batch's rows have similar lengths and the
    /// batch that needs most memory comes first.
    order: Vec<usize>,
}

impl EvaluationExamples {
    /// Leaves out examples without a label.
    pub fn new(encoder: &Encoder<'_>, mut examples: Vec<&Example>) -> Result<Self, GlueError> {
        examples.retain(|example| example.label.is_some());
        let labels = examples.iter().filter_map(|example| example.label).collect();
        let inputs = encoder.inputs(&examples)?.into_iter();
        let inputs: Vec<Encoded> = inputs.map(|input| Encoded { input, target: Vec::new() }).collect();
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|&index| Reverse(inputs[index].input.len()));
        Ok(EvaluationExamples { inputs, labels, order })
    }

    pub fn len(&self) -> usize {
        self.inputs.len()
    }
}

/// The score of the model's greedy answers. `progress` is told how many examples are answered, of how many.
pub(crate) fn evaluate(
    session: &mut dyn Session,
    encoder: &Encoder<'_>,
    sets: &[EvaluationExamples],
    batch_size: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TaskScore, GlueError> {
    let total = sets.iter().map(EvaluationExamples::len).sum();
    let mut done = 0;
    let mut predictions = Vec::new();
    for set in sets {
        let mut answered: Vec<(usize, Prediction)> = Vec::with_capacity(set.len());
        for indices in set.order.chunks(batch_size.max(1)) {
            answered.extend(answer(session, encoder, set, indices)?);
            done += indices.len();
            progress(done, total);
        }
        answered.sort_by_key(|(index, _)| *index);
        predictions.push(answered.into_iter().map(|(_, prediction)| prediction).collect());
    }
    Ok(TaskScore::new(encoder.task, &predictions))
}

fn answer(
    session: &mut dyn Session,
    encoder: &Encoder<'_>,
    set: &EvaluationExamples,
    indices: &[usize],
) -> Result<Vec<(usize, Prediction)>, GlueError> {
    let failed = |action: &str, source: Box<dyn std::error::Error + Send + Sync>| GlueError::Model {
        task: encoder.task,
        action: action.to_owned(),
        source,
    };
    let rows: Vec<&Encoded> = indices.iter().map(|&index| &set.inputs[index]).collect();
    let limit = encoder.generation_limit();
    let outputs = session
        .generate(&encoder.batch(&rows), limit)
        .map_err(|source| failed("cannot generate answers", source.into()))?;
    if outputs.len() != indices.len() {
        let problem = format!("{} answers to {} prompts", outputs.len(), indices.len());
        return Err(failed("cannot generate answers", problem.into()));
    }
    let answer = |(&index, tokens): (&usize, &Vec<i32>)| {
        let output = encoder
            .tokenizer
            .decode(tokens)
            .map_err(|source| failed("cannot turn an answer into text", source.into()))?;
        Ok((index, Prediction { label: set.labels[index], output, plain: encoder.is_plain_answer(tokens) }))
    };
    indices.iter().zip(&outputs).map(answer).collect()
}
