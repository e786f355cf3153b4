//! Fine-tuning a session on a task, and one session after another on several.

use std::error::Error;
use std::path::Path;

use t5_model::text::Tokenizer;
use t5_model::{Dropout, Session, TrainStep, Update};

use crate::batch::Encoder;
use crate::error::GlueError;
use crate::evaluate::{EvaluationExamples, evaluate};
use crate::files::{TaskData, read_task};
use crate::report::{ExampleCount, GlueReport, StepScore, TaskReport};
use crate::sampling::{EpochOrder, subset};
use crate::score::TaskScore;
use crate::settings::FineTuneSettings;
use crate::task::Task;

/// What a caller is told while it waits.
#[derive(Debug)]
pub enum Progress<'a> {
    Started { task: Task, train_examples: usize, dev_examples: usize, steps: u64 },
    Trained { task: Task, step: u64, result: &'a TrainStep },
    Answered { task: Task, step: u64, done: usize, of: usize },
    Evaluated { task: Task, step: u64, score: &'a TaskScore },
}

/// Opens the model to fine-tune, afresh for every task.
pub type OpenSession<'a> = dyn FnMut(Task) -> Result<Box<dyn Session>, Box<dyn Error + Send + Sync>> + 'a;

/// Fine-tunes on each of the tasks, whose files lie below `glue` in either layout. All files are read before
/// the first step, so that a bad row is not found after hours.
pub fn fine_tune_tasks(
    tasks: &[Task],
    glue: &Path,
    tokenizer: &Tokenizer,
    settings: &FineTuneSettings,
    open: &mut OpenSession<'_>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<GlueReport, GlueError> {
    settings.check()?;
    for &task in tasks {
        read_task(task, glue, settings.bad_rows())?;
    }
    let mut report = GlueReport { settings: settings.clone(), tasks: Vec::new() };
    for &task in tasks {
        let data = read_task(task, glue, settings.bad_rows())?;
        let mut session = open(task).map_err(|source| GlueError::Open { task, source })?;
        report.tasks.push(fine_tune(session.as_mut(), tokenizer, &data, settings, progress)?);
    }
    Ok(report)
}

/// Fine-tunes the session on one task and evaluates it on the task's development sets at intervals and at the end,
/// when the session holds the model of the last step. With 0 steps the model is evaluated as it is.
pub fn fine_tune(
    session: &mut dyn Session,
    tokenizer: &Tokenizer,
    data: &TaskData,
    settings: &FineTuneSettings,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<TaskReport, GlueError> {
    settings.check()?;
    let task = data.task;
    let encoder = Encoder {
        task,
        tokenizer,
        input_length: settings.input_length,
        target_length: settings.target_length,
    };
    let train = subset(&data.train, settings.max_train_examples);
    if train.is_empty() && settings.steps > 0 {
        return Err(GlueError::NoTraining { task });
    }
    let dev =
        data.dev.iter().map(|set| EvaluationExamples::new(&encoder, subset(set, settings.max_eval_examples)));
    let dev = dev.collect::<Result<Vec<_>, _>>()?;
    let dev_examples = dev.iter().map(EvaluationExamples::len).sum();
    progress(Progress::Started { task, train_examples: train.len(), dev_examples, steps: settings.steps });

    let evaluate_at = |session: &mut dyn Session, step, progress: &mut dyn FnMut(Progress<'_>)| {
        let mut answered = |done, of| progress(Progress::Answered { task, step, done, of });
        let score = evaluate(session, &encoder, &dev, settings.evaluation_batch_size, &mut answered)?;
        progress(Progress::Evaluated { task, step, score: &score });
        Ok::<_, GlueError>(score)
    };

    let mut order = EpochOrder::new(train.len(), settings.seed);
    let mut evaluations = Vec::new();
    let mut losses = RunningMean::default();
    for step in 1..=settings.steps {
        let indices = order.batch(step, settings.batch_size);
        let examples: Vec<_> = indices.iter().filter_map(|&index| train.get(index).copied()).collect();
        let rows = encoder.pairs(&examples)?;
        let micro_batches = encoder.micro_batches(&rows, settings.micro_batch_size);
        let result = session.train_step(&micro_batches, &update(settings, step)).map_err(|source| {
            GlueError::Model { task, action: format!("cannot train step {step}"), source: source.into() }
        })?;
        losses.add(result.loss);
        progress(Progress::Trained { task, step, result: &result });
        if step < settings.steps && step.is_multiple_of(settings.evaluate_every) {
            let score = evaluate_at(session, step, progress)?;
            evaluations.push(StepScore { step, train_loss: losses.take(), score });
        }
    }
    let score = evaluate_at(session, settings.steps, progress)?;
    let last = StepScore { step: settings.steps, train_loss: losses.take(), score };
    let examples = example_counts(task, train.len(), &dev);
    Ok(TaskReport::new(task, evaluations, last, examples, data.skipped))
}

fn update(settings: &FineTuneSettings, step: u64) -> Update {
    Update {
        optimizer: settings.optimizer,
        learning_rate: settings.learning_rate,
        step,
        optimizer_step: step,
        clip_norm: settings.clip_norm,
        z_loss: settings.z_loss,
        dropout: Dropout { rate: settings.dropout, seed: settings.seed },
    }
}

fn example_counts(task: Task, train: usize, dev: &[EvaluationExamples]) -> Vec<ExampleCount> {
    let spec = task.spec();
    let mut counts =
        vec![ExampleCount { file: "train.tsv".to_owned(), used: train, official: spec.train_rows }];
    for (set, examples) in spec.evaluation_sets.iter().zip(dev) {
        counts.push(ExampleCount { file: set.dev.to_owned(), used: examples.len(), official: set.dev_rows });
    }
    counts
}

#[derive(Default)]
struct RunningMean {
    sum: f64,
    count: u64,
}

impl RunningMean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// The mean of what was added since the last call.
    fn take(&mut self) -> Option<f64> {
        let RunningMean { sum, count } = std::mem::take(self);
        (count > 0).then(|| sum / count as f64)
    }
}
