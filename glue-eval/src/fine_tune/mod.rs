//! Fine-tuning a session on one task, or on a mixture of several.

mod directory;
mod examples;
mod outcome;
mod predictions;
mod regime;
pub(crate) mod sampling;
mod settings;
mod submission;

use std::collections::BTreeMap;

use fusion_core::lineage::Lineage;
use serde_json::{Value, json};
use t5_model::text::Tokenizer;
use t5_model::train::{
    Checkpoints, Control, Event, Identity, Job, OpenSession, Standing, TrainError, Training, checkpoint_after,
};
use t5_model::{Dropout, TensorBoard};

use self::examples::Examples;
use self::regime::{Measured, Tuning};
use self::sampling::EpochOrder;
use crate::answer::Answering;
use crate::data::TaskData;
use crate::error::GlueError;
use crate::score::TaskScore;

pub use directory::Keep;
pub use outcome::{ExampleCount, StepScore, TaskReport};
pub use settings::{AtStep, FineTuneSettings};

/// What a caller is told while it waits.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A fine-tuning begins.
    Started {
        /// The task, or `mixture`.
        name: &'a str,
        /// Of the examples' order and of dropout.
        seed: u64,
        /// Examples to train on.
        train_examples: usize,
        /// Examples of all development sets together.
        dev_examples: usize,
        /// Updates of the weights.
        steps: u64,
    },
    /// Something happens in it. An evaluation gives one score per task.
    Training(Event<'a, TaskScore>),
}

/// One model and what it is fine-tuned on.
pub struct FineTuning<'a> {
    /// One task, or several to be mixed.
    pub tasks: &'a [TaskData],
    /// The model's.
    pub tokenizer: &'a Tokenizer,
    /// Other files that are saved with the fine-tuned model, by name.
    pub beside: &'a BTreeMap<String, Vec<u8>>,
    /// How to fine-tune; the seeds among them do not count.
    pub settings: &'a FineTuneSettings,
    /// Of the examples' order and of dropout.
    pub seed: u64,
    /// The lineage of the model that is fine-tuned.
    pub lineage: &'a Lineage,
    /// Where it leaves its files, and continues when it is called again. Without, it leaves nothing.
    pub keep: Option<Keep<'a>>,
}

impl FineTuning<'_> {
    /// The task's name, or `mixture` for several.
    pub fn name(&self) -> &'static str {
        match self.tasks {
            [task] => task.task.spec().name,
            _ => "mixture",
        }
    }

    /// Fine-tunes and evaluates on every task's development sets at intervals and at the end. With 0 steps the model
    /// is evaluated as it is. `None` if it was stopped; then there is a checkpoint to continue from.
    ///
    /// # Errors
    /// [`GlueError`]; what was kept before stays whole.
    pub fn run(
        &self,
        open: &mut OpenSession<'_>,
        control: &Control<'_>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<Vec<TaskReport>>, GlueError> {
        let reports = self.try_run(open, control, progress);
        reports.map_err(|error| match error {
            GlueError::Training { error, .. } => GlueError::Training { name: self.name(), error },
            error => error,
        })
    }

    fn try_run(
        &self,
        open: &mut OpenSession<'_>,
        control: &Control<'_>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<Vec<TaskReport>>, GlueError> {
        let settings = self.settings;
        settings.check()?;
        let identity = self.identity();
        if let Some(keep) = self.keep {
            let finished = control.first(|| {
                let finished = keep.finished(&identity)?;
                if finished.is_none() {
                    keep.claim()?;
                }
                Ok::<_, GlueError>(finished)
            })?;
            if finished.is_some() {
                return Ok(finished);
            }
        }
        let encoder = settings.encoder(self.tokenizer);
        let examples = Examples::of(self.tasks, settings, &encoder)?;
        progress(Progress::Started {
            name: self.name(),
            seed: self.seed,
            train_examples: examples.train.len(),
            dev_examples: examples.dev_count(),
            steps: settings.steps,
        });
        let tasks: Vec<_> = self.tasks.iter().map(|data| json!(data.task)).collect();
        let job = Job {
            steps: settings.steps,
            evaluate_every: settings.evaluate_every,
            evaluate_first: false,
            checkpoint_every: settings.checkpoint_every,
            checkpoint_after: checkpoint_after(settings.checkpoint_minutes),
            log_every: settings.log_every,
            optimizer: settings.optimizer,
            carried: None,
            clip_norm: settings.clip_norm,
            z_loss: settings.z_loss,
            dropout: Dropout { rate: settings.dropout, seed: self.seed },
            checkpoints: self.keep.as_ref().map_or(Checkpoints::None, Keep::checkpoints),
            kept: None,
            identity: identity.clone(),
            lineage: self.lineage,
            record: [("glue".to_owned(), json!(tasks))].into_iter().collect(),
            tokenizer: self.tokenizer,
            beside: self.beside,
        };
        let begin = |at: &mut Standing<Measured>| {
            let board = |keep: Keep<'_>| TensorBoard::open(keep.directory, at.progress.step);
            let curves =
                self.keep.filter(|_| control.writes()).map(board).transpose().map_err(TrainError::from)?;
            let answering = Answering {
                encoder,
                scoring: settings.score,
                batch_size: settings.evaluation_batch_size,
                control,
            };
            let order = EpochOrder::new(examples.train.len(), self.seed);
            Ok(Tuning { tasks: self.tasks, settings, examples, order, answering, keep: self.keep, curves })
        };
        let observer = &mut |event: Event<'_, TaskScore>| progress(Progress::Training(event));
        let mut training = Training::open(job, open, begin, observer, control)?;
        if !training.run()? {
            return Ok(None);
        }
        let tuning = &training.regime;
        let mut reports = Vec::new();
        for (data, examples) in self.tasks.iter().zip(&tuning.examples.counts) {
            let evaluations = training.at.measured.evaluations(data.task).to_vec();
            reports.extend(TaskReport::new(data.task, evaluations, examples.clone(), data.skipped));
        }
        if let Some(keep) = self.keep {
            control.first(|| {
                if settings.save_models {
                    let state = json!({ "step": training.at.progress.step });
                    training.save_with(&state, &keep.model(), None)?;
                }
                keep.finish(identity, &reports)
            })?;
        }
        Ok(Some(reports))
    }

    /// What decides the result.
    fn identity(&self) -> Identity {
        let mut identity = self.settings.identity(self.seed);
        if let Some(keep) = &self.keep {
            identity.extend(keep.identity);
        }
        identity.insert("tasks", self.tasks.iter().map(|data| json!(data.task)).collect::<Value>());
        identity.insert("tokenizer", self.tokenizer.fingerprint());
        identity.sorted()
    }
}
