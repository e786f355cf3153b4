//! Tasks outside of a fine-tuning: prompts and answers, to measure how fast a model gives them.

use std::sync::atomic::AtomicBool;

use t5_model::text::Tokenizer;
use t5_model::train::Control;
use t5_model::{Batch, Session};

use crate::answer::{Answering, Encoder, Prompts, Scoring};
use crate::data::{Example, TaskData};
use crate::error::GlueError;
use crate::fine_tune::FineTuneSettings;
use crate::fine_tune::sampling::{EpochOrder, subset};
use crate::score::Prediction;
use crate::task::{EvaluationSet, Task};

/// A development set's prompts, for a model to answer.
pub struct Questions<'a> {
    /// The task, and the set if there are several: `sst2`, `mnli matched`.
    pub name: String,
    encoder: Encoder<'a>,
    prompts: Prompts<'a>,
}

impl<'a> Questions<'a> {
    /// Prompts of these examples; the settings limit their number and lengths.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn new(
        task: Task,
        set: &EvaluationSet,
        examples: &'a [Example],
        tokenizer: &'a Tokenizer,
        settings: &FineTuneSettings,
    ) -> Result<Self, GlueError> {
        let encoder = settings.encoder(tokenizer);
        let prompts = Prompts::new(&encoder, task, subset(examples, settings.max_eval_examples))?;
        let name = format!("{} {}", task.spec().name, set.name).trim_end().to_owned();
        Ok(Questions { name, encoder, prompts })
    }

    /// The tokens of each prompt, end token included.
    pub fn prompts(&self) -> &[Vec<i32>] {
        &self.prompts.inputs
    }

    /// The most tokens an answer may have, end token included.
    pub fn generation_limit(&self) -> usize {
        self.encoder.generation_limit(self.prompts.task)
    }

    /// The model's answers in the order of the prompts, by greedy decoding as in an evaluation. `None` stands for an invalid
    /// answer.
    ///
    /// # Errors
    /// If the session fails.
    pub fn answers(
        &self,
        session: &mut dyn Session,
        batch_size: usize,
    ) -> Result<Vec<Option<String>>, GlueError> {
        let never = AtomicBool::new(false);
        let control = &Control::alone(&never);
        let answering = Answering { encoder: self.encoder, scoring: Scoring::Generate, batch_size, control };
        let predictions = answering.answers(session, &self.prompts, &mut |_| {})?.unwrap_or_default();
        Ok(predictions.into_iter().map(|prediction| self.valid(prediction)).collect())
    }

    /// The answer that another program gave with these tokens (without the end token), if it is valid.
    pub fn judge(&self, tokens: &[i32], output: String) -> Option<String> {
        let plain = self.encoder.is_plain_answer(self.prompts.task, tokens);
        self.valid(Prediction { label: None, output, plain })
    }

    fn valid(&self, prediction: Prediction) -> Option<String> {
        let valid = prediction.is_valid(&self.prompts.task.spec().answer);
        valid.then_some(prediction.output)
    }
}

/// The micro-batches of one training step that takes equally many examples of each task.
///
/// # Errors
/// If the tokenizer fails, or a target does not fit.
pub fn lesson(
    tasks: &[TaskData],
    tokenizer: &Tokenizer,
    settings: &FineTuneSettings,
    step: u64,
) -> Result<Vec<Batch>, GlueError> {
    let encoder = settings.encoder(tokenizer);
    let each = settings.batch_size.div_ceil(tasks.len().max(1));
    let drawn = |data: &'_ TaskData| EpochOrder::new(data.train.len(), settings.seed).batch(step, each);
    let examples: Vec<(Task, &Example)> = tasks
        .iter()
        .flat_map(|data| drawn(data).into_iter().map(|index| (data.task, &data.train[index])))
        .collect();
    Ok(encoder.micro_batches(&encoder.pairs(&examples)?, settings.micro_batch_size))
}
