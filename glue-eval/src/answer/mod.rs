//! A model's answers to examples.

mod encoder;

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use t5_model::train::{Control, TrainError};
use t5_model::{Decoding, Rules, Session};

use crate::data::Example;
use crate::error::GlueError;
use crate::prompt::possible_answers;
use crate::score::Prediction;
use crate::task::Task;

pub(crate) use encoder::Encoder;

/// How a model's answer to a prompt is obtained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Scoring {
    /// Greedy decoding, as in T5; an output that is not an answer is invalid.
    #[default]
    Generate,
    /// The most likely of the possible answers: cheaper, and never invalid.
    ///
    /// These are the label words, or the numbers from 0.0 to 5.0 in steps of 0.2.
    Rank,
}

/// Examples of one file, tokenised once and answered in every evaluation.
pub(crate) struct Prompts<'a> {
    pub task: Task,
    pub examples: Vec<&'a Example>,
    pub inputs: Vec<Vec<i32>>,
    /// Positions from the longest input to the shortest: rows of a batch have similar lengths, and the batch that needs
    /// the most memory comes first.
    order: Vec<usize>,
}

impl<'a> Prompts<'a> {
    pub fn new(encoder: &Encoder<'_>, task: Task, examples: Vec<&'a Example>) -> Result<Self, GlueError> {
        let inputs = encoder.inputs(&examples.iter().map(|&example| (task, example)).collect::<Vec<_>>())?;
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|&index| Reverse(inputs[index].len()));
        Ok(Prompts { task, examples, inputs, order })
    }
}

/// How examples are answered.
pub(crate) struct Answering<'a> {
    pub encoder: Encoder<'a>,
    pub scoring: Scoring,
    pub batch_size: usize,
    pub control: &'a Control<'a>,
}

impl Answering<'_> {
    /// Answers in the order of the examples; `None` if it was stopped. `answered` is told how many more are done.
    pub fn answers(
        &self,
        session: &mut dyn Session,
        prompts: &Prompts<'_>,
        answered: &mut dyn FnMut(usize),
    ) -> Result<Option<Vec<Prediction>>, GlueError> {
        let candidates = match self.scoring {
            Scoring::Generate => Vec::new(),
            Scoring::Rank => self.encoder.candidates(prompts.task)?,
        };
        let mut predictions: Vec<Option<Prediction>> = vec![None; prompts.inputs.len()];
        for indices in prompts.order.chunks(self.batch_size.max(1)) {
            if self.control.stopped().map_err(TrainError::from)? {
                return Ok(None);
            }
            let outputs = self.outputs(session, prompts, &candidates, indices)?;
            if outputs.len() != indices.len() {
                let problem = format!("{} answers to {} prompts", outputs.len(), indices.len());
                return Err(failed(prompts.task, "cannot answer", problem.into()));
            }
            for (&index, prediction) in indices.iter().zip(outputs) {
                predictions[index] = Some(prediction);
            }
            answered(indices.len());
        }
        Ok(Some(predictions.into_iter().flatten().collect()))
    }

    fn outputs(
        &self,
        session: &mut dyn Session,
        prompts: &Prompts<'_>,
        candidates: &[Vec<i32>],
        indices: &[usize],
    ) -> Result<Vec<Prediction>, GlueError> {
        let (task, encoder) = (prompts.task, &self.encoder);
        let label = |index: usize| prompts.examples[index].label;
        let batch = encoder.batch(indices.iter().map(|&index| (prompts.inputs[index].as_slice(), &[][..])));
        match self.scoring {
            Scoring::Generate => {
                // Targets end with the tokenizer's end token, whatever the configuration calls one.
                let rules = Rules { ends: Some(vec![encoder.tokenizer.eos_id()]), ..Rules::default() };
                let decoding = Decoding { rules, ..Decoding::greedy(encoder.generation_limit(task)) };
                let outputs = session
                    .generate(&batch, &decoding, &|tokens| encoder.is_hopeless(task, tokens))
                    .map_err(|source| failed(task, "cannot generate answers", source.into()))?;
                let prediction = |(tokens, &index): (Vec<i32>, &usize)| {
                    let output = encoder
                        .tokenizer
                        .decode(&tokens)
                        .map_err(|source| failed(task, "cannot turn an answer into text", source.into()))?;
                    let plain = encoder.is_plain_answer(task, &tokens);
                    Ok(Prediction { label: label(index), output, plain })
                };
                outputs.into_iter().zip(indices).map(prediction).collect()
            }
            Scoring::Rank => {
                let words = possible_answers(task);
                let likelihoods = session
                    .log_likelihoods(&batch, candidates)
                    .map_err(|source| failed(task, "cannot rank answers", source.into()))?;
                let prediction = |(row, &index): (Vec<f64>, &usize)| {
                    let output = words.get(most_likely(&row)).cloned().unwrap_or_default();
                    Prediction { label: label(index), output, plain: true }
                };
                Ok(likelihoods.into_iter().zip(indices).map(prediction).collect())
            }
        }
    }
}

/// The position of the largest, the first of several.
fn most_likely(likelihoods: &[f64]) -> usize {
    let best = |best: usize, at: usize| if likelihoods[at] > likelihoods[best] { at } else { best };
    (1..likelihoods.len()).fold(0, best)
}

fn failed(task: Task, action: &str, source: Box<dyn std::error::Error + Send + Sync>) -> GlueError {
    GlueError::Model { task, action: action.to_owned(), source }
}
