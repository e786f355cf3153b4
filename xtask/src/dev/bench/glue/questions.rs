//! Which examples are answered, shared by the bench and its workers.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::Args;
use glue_eval::data::{BadRows, Example, Split, read_split};
use glue_eval::task::EvaluationSet;
use glue_eval::{FineTuneSettings, Questions, Task};
use t5_model::text::Tokenizer;

/// A part of the development sets, and how to answer it.
#[derive(Args, Clone, Debug)]
pub struct Sample {
    /// Tasks, such as cola,sst2 [default: all eight]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<Task>,
    /// Answer at most this many examples of each development set
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_examples: u64,
    /// Prompts per batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    pub batch_size: u64,
}

impl Sample {
    pub fn tasks(&self) -> Vec<Task> {
        if self.tasks.is_empty() { Task::ALL.to_vec() } else { self.tasks.clone() }
    }

    pub fn settings(&self) -> FineTuneSettings {
        let max_eval_examples = Some(usize::try_from(self.max_examples).unwrap_or(usize::MAX));
        FineTuneSettings { max_eval_examples, ..FineTuneSettings::default() }
    }

    /// The same as arguments for a worker.
    pub fn arguments(&self) -> Vec<String> {
        let tasks: Vec<&str> = self.tasks().iter().map(|task| task.spec().name).collect();
        let (examples, batch) = (self.max_examples.to_string(), self.batch_size.to_string());
        ["--tasks", &tasks.join(","), "--max-examples", &examples, "--batch-size", &batch]
            .map(str::to_owned)
            .to_vec()
    }
}

/// The examples of the tasks' development sets.
pub struct DevSets(Vec<(Task, &'static EvaluationSet, Vec<Example>)>);

impl DevSets {
    pub fn read(glue: &Path, sample: &Sample) -> Result<Self> {
        let mut sets = Vec::new();
        for task in sample.tasks() {
            for set in task.spec().evaluation_sets {
                let read = read_split(task, Split::Dev(set), glue, BadRows::Skip)?;
                sets.push((task, set, read.examples));
            }
        }
        ensure!(!sets.is_empty(), "there is no task to answer");
        Ok(DevSets(sets))
    }

    pub fn questions<'a>(&'a self, tokenizer: &'a Tokenizer, sample: &Sample) -> Result<Vec<Questions<'a>>> {
        let settings = sample.settings();
        let questions = |(task, set, examples): &'a (Task, &EvaluationSet, Vec<Example>)| {
            Ok(Questions::new(*task, set, examples, tokenizer, &settings)?)
        };
        self.0.iter().map(questions).collect()
    }
}
