use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use fusion_core::atomic::{claim, write_own_file};
use glue_eval::{FineTuneSettings, Task};
use pipeline::run::StageLock;
use pipeline::source::ModelPlace;
use pipeline::source::glue::GluePlace;
use pipeline::stage::glue::{Places, fine_tune};
use pipeline::write_json;
use t5_model::optimizer::OptimizerOptions;

use crate::cli::compute::{ComputeArguments, GroupArguments};
use crate::cli::section::section;
use crate::ranks;
use crate::terminal::output::{Format, print, print_json};
use crate::terminal::{Terminal, interrupt};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask glue --model fused --glue GLUE --tasks cola,rte --steps 1000 --output fused-glue\n",
    "  cargo xtask glue --model fused --glue GLUE --steps 20000 --seeds 3 --submission best --output fused-glue",
);

/// The settings in the order in which the help lists them.
const FINE_TUNING: &str = "steps batch_size micro_batch_size optimizer learning_rate dropout clip_norm z_loss mixture \
     input_length target_length max_train_examples skip_bad_rows seed seeds checkpoint_every checkpoint_minutes log_every save_models";
/// The optimiser's own, which belong to some optimisers each.
const OPTIMIZER: &str =
    "weight_decay momentum beta1 beta2 epsilon decay_rate clip_threshold min_dim_size_to_factor";
const SCORING: &str = "score evaluate_every evaluation_batch_size max_eval_examples early_stopping bootstrap submission \
     details";

/// Fine-tune a model on GLUE and score it
///
/// The checkpoint is fine-tuned on each task separately, and its greedy answers are scored on the task's
/// development set with the metrics of the paper's Table 5. The defaults are T5's (Adafactor at a constant
/// 1e-3, batches of 128, dropout 0.1). DIR contains the official TSV files, one folder per task (CoLA, SST-2,
/// MRPC, STS-B, QQP, MNLI, QNLI, RTE), or the Parquet files of nyu-mll/glue on the Hugging Face Hub (cola,
/// sst2, mrpc, …).
///
/// With --output, the same command resumes an interrupted run, and each task's predictions for every example
/// and curves for TensorBoard are kept.
#[derive(Args, Debug)]
#[command(
    after_help = EXAMPLES,
    mut_args = section("Fine-tuning", FINE_TUNING),
    mut_args = section("Optimiser", OPTIMIZER),
    mut_args = section("Scoring", SCORING),
    mut_arg("save_models", |arg| arg.requires("output")),
    mut_arg("submission", |arg| arg.requires("output")),
)]
pub struct Arguments {
    /// The checkpoint: a directory in the Hugging Face layout, or `hf:ORG/NAME[@REVISION]`
    #[arg(long, value_name = "MODEL")]
    model: ModelPlace,
    /// GLUE's files: a folder, or `hf:nyu-mll/glue[@REVISION]`
    #[arg(long, value_name = "DIR")]
    glue: GluePlace,
    /// Tasks, such as cola,sst2 [default: all eight]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<Task>,
    /// A tokenizer.json, spiece.model or folder, or bytes [default: the model's]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Keep results, predictions, curves and checkpoints here, and resume from them
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The format of the table
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The same as --format json: settings, and every task's scores at every evaluation
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    settings: FineTuneSettings,
    #[command(flatten)]
    optimizer: OptimizerOptions,
    /// Also print confidence intervals and confusion tables
    #[arg(long)]
    details: bool,
    #[command(flatten)]
    compute: ComputeArguments,
    #[command(flatten)]
    group: GroupArguments,
}

impl Arguments {
    pub fn run(mut self) -> Result<()> {
        self.settings.optimizer = self.optimizer.of(self.settings.optimizer)?;
        self.settings.check()?;
        let tasks = if self.tasks.is_empty() { Task::ALL.to_vec() } else { self.tasks };
        let glue = self.glue.directory(&tasks)?;
        let model = self.model.directory(&Terminal)?;
        let places = Places {
            name: "glue",
            model: &model,
            files: &glue,
            tokenizer: self.tokenizer.as_deref(),
            directory: self.output.as_deref(),
        };
        let (report, _lock) = self.compute.run_together(&self.group, |compute| {
            interrupt::listen()?;
            let mut lock = None;
            compute.control(&Terminal).first(|| {
                let Some(output) = &self.output else { return Ok(()) };
                claim(output, &["glue.json", "table.csv", "table.md"])?;
                lock = Some(StageLock::take(output, "glue")?);
                Ok::<_, anyhow::Error>(())
            })?;
            Ok((fine_tune(&places, &tasks, &self.settings, compute, &Terminal)?, lock))
        })?;
        let table = report.table("");
        if let Some(output) = self.output.as_ref().filter(|_| ranks::is_first()) {
            let write = |name: &str, text: String| {
                write_own_file(output, name, text.as_bytes())
                    .with_context(|| format!("{name} was not written"))
            };
            write_json(&output.join("glue.json"), &report).context("glue.json was not written")?;
            write("table.md", table.markdown())?;
            write("table.csv", table.csv())?;
        }
        let details = if self.details { format!("\n{}", report.details()) } else { String::new() };
        match self.format {
            _ if self.json => print_json(&report),
            Format::Json => print_json(&report),
            Format::Text => print(&format!("{}{details}", table.text())),
            Format::Markdown => print(&table.markdown()),
            Format::Csv => print(&table.csv()),
        }
    }
}
