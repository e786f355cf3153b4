//! The examples of a fine-tuning.

use super::outcome::ExampleCount;
use super::sampling::subset;
use super::settings::FineTuneSettings;
use crate::answer::Encoder;
use crate::answer::Prompts;
use crate::data::{Example, TaskData};
use crate::error::GlueError;
use crate::task::Task;

/// What a model is trained on and what it answers.
pub(crate) struct Examples<'a> {
    /// Those of all tasks; a pass over them takes each task in proportion to its training set.
    pub train: Vec<(Task, &'a Example)>,
    /// By task, then by evaluation set.
    pub dev: Vec<Vec<Prompts<'a>>>,
    /// Likewise the test sets, if they are to be answered.
    pub test: Vec<Vec<Prompts<'a>>>,
    /// By task, then by split.
    pub counts: Vec<Vec<ExampleCount>>,
}

impl<'a> Examples<'a> {
    pub fn of(
        tasks: &'a [TaskData],
        settings: &FineTuneSettings,
        encoder: &Encoder<'_>,
    ) -> Result<Self, GlueError> {
        let mut all = Examples { train: Vec::new(), dev: Vec::new(), test: Vec::new(), counts: Vec::new() };
        for data in tasks {
            let task = data.task;
            let train = subset(&data.train, settings.max_train_examples);
            if train.is_empty() && settings.steps > 0 {
                return Err(GlueError::NoTraining { task });
            }
            let dev: Vec<Vec<&Example>> =
                data.dev.iter().map(|set| subset(set, settings.max_eval_examples)).collect();
            all.counts.push(ExampleCount::of(task, train.len(), &dev));
            let prompts = |sets: Vec<Vec<&'a Example>>| {
                sets.into_iter().map(|set| Prompts::new(encoder, task, set)).collect::<Result<Vec<_>, _>>()
            };
            all.dev.push(prompts(dev)?);
            all.test.push(prompts(data.test.iter().map(|set| set.iter().collect()).collect())?);
            all.train.extend(train.into_iter().map(|example| (task, example)));
        }
        Ok(all)
    }

    /// The number of examples in all development sets.
    pub fn dev_count(&self) -> usize {
        self.dev.iter().flatten().map(|prompts| prompts.examples.len()).sum()
    }
}
