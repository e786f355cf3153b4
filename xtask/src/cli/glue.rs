use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use fusion_core::atomic::write_file_atomically;
use glue_eval::{AtStep, FineTuneSettings, Scoring, Task};
use pipeline::run::StageLock;
use pipeline::source::ModelPlace;
use pipeline::source::glue::GluePlace;
use pipeline::stage::glue::{Places, fine_tune};
use pipeline::write_json;
use t5_model::Optimizer;

use crate::cli::compute::ComputeArguments;
use crate::terminal::output::{print, print_json};
use crate::terminal::{Terminal, interrupt};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask glue --model fused --glue GLUE --tasks cola,rte --steps 1000 --output fused-glue\n",
    "  cargo xtask glue --model fused --glue GLUE --steps 20000 --seeds 3 --submission best --output fused-glue",
);

/// Fine-tune a model on GLUE and score it
///
/// Each task is fine-tuned afresh from the checkpoint and scored on its development set, by greedy answers, with the
/// metrics of the paper's Table 5. The defaults are T5's (Adafactor at a constant 1e-3, batches of 128, dropout 0.1).
/// DIR holds the official TSV files, one folder a task (CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE), or the Parquet
/// files of the Hugging Face hub's nyu-mll/glue (cola, sst2, mrpc, …).
///
/// With --output, an interrupted fine-tuning goes on with the same command, and each leaves its predictions, example by
/// example, and curves for TensorBoard.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoint, in Hugging Face's layout, or `hf:ORG/NAME[@REVISION]`
    #[arg(long, value_name = "MODEL")]
    model: ModelPlace,
    /// GLUE's files: a folder, or `hf:nyu-mll/glue[@REVISION]`
    #[arg(long, value_name = "DIR")]
    glue: GluePlace,
    /// Tasks, such as cola,sst2 [default: all eight]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<Task>,
    /// A tokenizer.json, spiece.model or folder [default: the model's]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Keep results, predictions, curves and checkpoints here, and go on with what is there
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// How the table is written
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The same as --format json: settings, and every task's scores at every evaluation
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    training: TrainingArguments,
    #[command(flatten)]
    scoring: ScoringArguments,
    #[command(flatten)]
    compute: ComputeArguments,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Fine-tuning")]
struct TrainingArguments {
    /// Updates for each task
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().steps)]
    steps: u64,
    /// Examples in an update
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().batch_size)]
    batch_size: usize,
    /// Examples on the device at once
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().micro_batch_size)]
    micro_batch_size: usize,
    /// What updates the weights
    #[arg(long, value_enum, default_value = "adafactor")]
    optimizer: OptimizerName,
    /// Constant throughout
    #[arg(long, value_name = "RATE", default_value_t = FineTuneSettings::default().learning_rate)]
    learning_rate: f64,
    /// Share of activations that are dropped
    #[arg(long, value_name = "RATE", default_value_t = FineTuneSettings::default().dropout)]
    dropout: f64,
    /// One model for all tasks, trained on their examples mixed in proportion to their number
    #[arg(long)]
    mixture: bool,
    /// Tokens of an input, longer ones are cut
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().input_length)]
    input_length: usize,
    /// Train on at most so many examples of each task
    #[arg(long, value_name = "N")]
    max_train_examples: Option<usize>,
    /// Leave out rows that are no examples instead of stopping
    #[arg(long)]
    skip_bad_rows: bool,
    /// The first seed, of the examples' order and of dropout
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Seeds, from the first on; each task's mean and standard deviation over them is reported
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,
    /// Updates between two checkpoints to go on from
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().checkpoint_every)]
    checkpoint_every: u64,
    /// Keep the model of the last step
    #[arg(long, requires = "output")]
    save_models: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Scoring")]
struct ScoringArguments {
    /// How answers are taken
    #[arg(long, value_enum, default_value = "generate")]
    score: ScoringName,
    /// Updates between two evaluations; the last step is always evaluated
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().evaluate_every)]
    evaluate_every: u64,
    /// Examples that are answered at once
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().evaluation_batch_size)]
    evaluation_batch_size: usize,
    /// Score on at most so many examples of each development set
    #[arg(long, value_name = "N")]
    max_eval_examples: Option<usize>,
    /// End a fine-tuning once so many evaluations in a row have brought no better score
    #[arg(long, value_name = "N")]
    early_stopping: Option<u64>,
    /// Resamples of the examples for confidence intervals; 0 for none
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().bootstrap)]
    bootstrap: usize,
    /// Answer the test sets too, with the model of this step, in the files that GLUE's server takes
    #[arg(long, value_enum, value_name = "STEP", requires = "output")]
    submission: Option<StepName>,
    /// Also print confidence intervals, and which class was answered for which
    #[arg(long)]
    details: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Format {
    Text,
    Markdown,
    Csv,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OptimizerName {
    /// T5's
    Adafactor,
    /// AdamW, as in PyTorch
    Adamw,
    /// nanoT5's AdamW, whose update is scaled by the weights' root mean square
    AdamwScale,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScoringName {
    /// Greedy decoding, as T5 does; what is no answer is invalid
    Generate,
    /// The most likely of the possible answers: cheaper, and never invalid
    Rank,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StepName {
    /// Where each task scored best on its development set
    Best,
    /// The last
    Last,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let settings = self.settings();
        settings.check()?;
        let tasks = if self.tasks.is_empty() { Task::ALL.to_vec() } else { self.tasks };
        let glue = self.glue.directory(&tasks)?;
        let model = self.model.directory(&Terminal)?;
        let compute = self.compute.start()?;
        interrupt::listen()?;
        let _lock = self.output.as_deref().map(|output| StageLock::take(output, "glue")).transpose()?;
        let places = Places {
            model: &model,
            files: &glue,
            tokenizer: self.tokenizer.as_deref(),
            directory: self.output.as_deref(),
        };
        let report = fine_tune(&places, &tasks, &settings, &compute, &Terminal)?;
        let table = report.table("");
        if let Some(output) = &self.output {
            let write = |name: &str, text: String| {
                write_file_atomically(&output.join(name), text.as_bytes())
                    .with_context(|| format!("{name} was not written"))
            };
            write_json(&output.join("glue.json"), &report).context("glue.json was not written")?;
            write("table.md", table.markdown())?;
            write("table.csv", table.csv())?;
        }
        let details = if self.scoring.details { format!("\n{}", report.details()) } else { String::new() };
        match self.format {
            _ if self.json => print_json(&report),
            Format::Json => print_json(&report),
            Format::Text => print(&format!("{}{details}", table.text())),
            Format::Markdown => print(&table.markdown()),
            Format::Csv => print(&table.csv()),
        }
    }

    fn settings(&self) -> FineTuneSettings {
        let (training, scoring) = (&self.training, &self.scoring);
        FineTuneSettings {
            steps: training.steps,
            batch_size: training.batch_size,
            micro_batch_size: training.micro_batch_size,
            optimizer: match training.optimizer {
                OptimizerName::Adafactor => Optimizer::adafactor(),
                OptimizerName::Adamw => Optimizer::adamw(),
                OptimizerName::AdamwScale => Optimizer::adamw_scale(),
            },
            learning_rate: training.learning_rate,
            dropout: training.dropout,
            mixture: training.mixture,
            input_length: training.input_length,
            max_train_examples: training.max_train_examples,
            skip_bad_rows: training.skip_bad_rows,
            seed: training.seed,
            seeds: training.seeds,
            checkpoint_every: training.checkpoint_every,
            save_models: training.save_models,
            score: match scoring.score {
                ScoringName::Generate => Scoring::Generate,
                ScoringName::Rank => Scoring::Rank,
            },
            evaluate_every: scoring.evaluate_every,
            evaluation_batch_size: scoring.evaluation_batch_size,
            max_eval_examples: scoring.max_eval_examples,
            early_stopping: scoring.early_stopping,
            bootstrap: scoring.bootstrap,
            submission: scoring.submission.map(|step| match step {
                StepName::Best => AtStep::Best,
                StepName::Last => AtStep::Last,
            }),
            ..FineTuneSettings::default()
        }
    }
}
