//! Examples as tokens, and tokens as padded batches.

use t5_model::Batch;
use t5_model::text::Tokenizer;

use crate::data::Example;
use crate::error::GlueError;
use crate::prompt::{input_text, may_become_answer, possible_answers, target_text};
use crate::task::{Answer, Task};

/// An example's tokens; both sides end with the end token.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Encoded {
    pub input: Vec<i32>,
    /// Empty if the example has no label.
    pub target: Vec<i32>,
}

/// Turns examples into tokens.
#[derive(Clone, Copy)]
pub(crate) struct Encoder<'a> {
    pub tokenizer: &'a Tokenizer,
    pub input_length: usize,
    pub target_length: usize,
}

impl<'a> Encoder<'a> {
    /// The prompts, each cut so that it fits with its end token.
    pub fn inputs(&self, examples: &[(Task, &Example)]) -> Result<Vec<Vec<i32>>, GlueError> {
        let texts: Vec<String> = examples.iter().map(|(task, example)| input_text(*task, example)).collect();
        let mut inputs = self.tokens(&texts)?;
        for input in &mut inputs {
            input.truncate(self.input_length.saturating_sub(1));
            input.push(self.tokenizer.eos_id());
        }
        Ok(inputs)
    }

    /// Prompts and targets.
    pub fn pairs(&self, examples: &[(Task, &Example)]) -> Result<Vec<Encoded>, GlueError> {
        let target = |(task, example): &(Task, &Example)| {
            example.label.and_then(|label| target_text(*task, label)).unwrap_or_default()
        };
        let targets = self.targets(&examples.iter().map(target).collect::<Vec<_>>())?;
        let inputs = self.inputs(examples)?;
        Ok(inputs.into_iter().zip(targets).map(|(input, target)| Encoded { input, target }).collect())
    }

    /// The tokens of every answer that a task allows, in the order of [`possible_answers`].
    pub fn candidates(&self, task: Task) -> Result<Vec<Vec<i32>>, GlueError> {
        self.targets(&possible_answers(task))
    }

    /// Targets, each with its end token. One that does not fit is an error: once cut, no output could ever match it.
    fn targets(&self, texts: &[String]) -> Result<Vec<Vec<i32>>, GlueError> {
        let mut targets = self.tokens(texts)?;
        for (target, text) in targets.iter_mut().zip(texts) {
            target.push(self.tokenizer.eos_id());
            if target.len() > self.target_length {
                let problem =
                    format!("{}, but the target {text:?} takes {} tokens", self.target_length, target.len());
                return Err(GlueError::Setting { name: "target_length", problem });
            }
        }
        Ok(targets)
    }

    /// The lengths of the uncut prompts, end tokens included.
    pub fn lengths(&self, task: Task, examples: &[Example]) -> Result<Vec<usize>, GlueError> {
        let texts: Vec<String> = examples.iter().map(|example| input_text(task, example)).collect();
        Ok(self.tokens(&texts)?.iter().map(|input| input.len() + 1).collect())
    }

    fn tokens(&self, texts: &[String]) -> Result<Vec<Vec<i32>>, GlueError> {
        self.tokenizer.encode_batch(texts).map_err(|source| GlueError::Tokenizer { source: source.into() })
    }

    /// How many tokens to generate so that every valid answer ends before the limit. A label word takes at most one
    /// token per character and one for the leading space; a number gets room for far more digits than T5 is taught.
    pub fn generation_limit(&self, task: Task) -> usize {
        let longest = match &task.spec().answer {
            Answer::Class { words, .. } => words.iter().map(|word| word.chars().count()).max().unwrap_or(0),
            Answer::Score { .. } => 14,
        };
        (longest + 2).min(self.target_length)
    }

    /// A batch, padded to its longest row.
    pub fn batch<'r>(&self, rows: impl IntoIterator<Item = (&'r [i32], &'r [i32])>) -> Batch {
        Batch::padded(rows, self.tokenizer.pad_id())
    }

    /// Splits rows into micro-batches of similar lengths, so that there is little padding.
    pub fn micro_batches(&self, rows: &[Encoded], size: usize) -> Vec<Batch> {
        let mut sorted: Vec<&Encoded> = rows.iter().collect();
        sorted.sort_by_key(|row| row.input.len());
        sorted
            .chunks(size.max(1))
            .map(|rows| self.batch(rows.iter().map(|row| (row.input.as_slice(), row.target.as_slice()))))
            .collect()
    }

    /// Whether generated tokens are plain text that ended before the limit. Decoded text does not show sentinels, unknown
    /// tokens or the model's spare ids, so `<extra_id_0> acceptable` would read as an answer.
    pub fn is_plain_answer(&self, task: Task, tokens: &[i32]) -> bool {
        tokens.len() < self.generation_limit(task) && tokens.iter().all(|&token| self.is_plain(token))
    }

    fn is_plain(&self, token: i32) -> bool {
        let tokenizer = self.tokenizer;
        let in_vocabulary = usize::try_from(token).is_ok_and(|token| token < tokenizer.vocab_size());
        in_vocabulary && !tokenizer.is_control(token) && token != tokenizer.unk_id()
    }

    /// Whether no valid answer begins with these tokens, so that whatever follows cannot matter.
    pub fn is_hopeless(&self, task: Task, tokens: &[i32]) -> bool {
        !tokens.iter().all(|&token| self.is_plain(token))
            || self.tokenizer.decode(tokens).is_ok_and(|text| !may_become_answer(task, &text))
    }
}
