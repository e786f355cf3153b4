use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use fusion_core::write_file_atomically;
use glue_eval::{FineTuneSettings, Task};

use crate::compute::ComputeArguments;
use crate::interrupt;
use crate::model::ModelPlace;
use crate::output::{print, print_json};
use crate::stage::glue::fine_tune;

const EXAMPLES: &str =
    concat!("Example:\n", "  cargo xtask glue --model fused --glue GLUE --tasks cola,rte --steps 1000",);

/// Fine-tune a model on GLUE and score it
///
/// Each task is fine-tuned afresh from the checkpoint and scored on its development set, by greedy answers, with the
/// metrics of the paper's Table 5. The defaults are T5's (Adafactor at a constant 1e-3, batches of 128, dropout 0.1).
/// DIR holds the official TSV files, one folder a task (CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE), or the Parquet
/// files of the Hugging Face hub's nyu-mll/glue (cola, sst2, mrpc, …).
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoint, in Hugging Face's layout, or `hf:ORG/NAME[@REVISION]`
    #[arg(long, value_name = "MODEL")]
    model: ModelPlace,
    /// GLUE's files
    #[arg(long, value_name = "DIR")]
    glue: PathBuf,
    /// Tasks, such as cola,sst2 [default: all eight]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<Task>,
    /// Updates for each task
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().steps)]
    steps: u64,
    /// Examples in an update
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().batch_size)]
    batch_size: usize,
    /// Examples on the device at once
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().micro_batch_size)]
    micro_batch_size: usize,
    /// Constant throughout
    #[arg(long, value_name = "RATE", default_value_t = FineTuneSettings::default().learning_rate)]
    learning_rate: f64,
    /// Updates between two evaluations; the last step is always evaluated
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().evaluate_every)]
    evaluate_every: u64,
    /// Tokens of an input, longer ones are cut
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().input_length)]
    input_length: usize,
    /// Train on at most so many examples of each task
    #[arg(long, value_name = "N")]
    max_train_examples: Option<usize>,
    /// Score on at most so many examples of each development set
    #[arg(long, value_name = "N")]
    max_eval_examples: Option<usize>,
    /// Leave out rows that are no examples instead of stopping
    #[arg(long)]
    skip_bad_rows: bool,
    /// Seed of the examples' order and of dropout
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// A tokenizer.json, spiece.model or folder [default: the model's]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Also write the results to a file, as JSON
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON: settings, and every task's scores at every evaluation
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let settings = FineTuneSettings {
            steps: self.steps,
            batch_size: self.batch_size,
            micro_batch_size: self.micro_batch_size,
            learning_rate: self.learning_rate,
            evaluate_every: self.evaluate_every,
            input_length: self.input_length,
            max_train_examples: self.max_train_examples,
            max_eval_examples: self.max_eval_examples,
            skip_bad_rows: self.skip_bad_rows,
            seed: self.seed,
            ..FineTuneSettings::default()
        };
        settings.check()?;
        let tasks = if self.tasks.is_empty() { Task::ALL.to_vec() } else { self.tasks };
        let model = self.model.directory()?;
        let compute = self.compute.start()?;
        interrupt::listen()?;
        let report = fine_tune(&model, &tasks, &settings, &self.glue, self.tokenizer.as_deref(), &compute)?;
        if let Some(output) = &self.output {
            let text = format!("{}\n", serde_json::to_string_pretty(&report)?);
            write_file_atomically(output, text.as_bytes()).context("the results were not written")?;
        }
        if self.json { print_json(&report) } else { print(&report.table("").text()) }
    }
}
