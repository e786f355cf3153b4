use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};
use clap::Args;
use glue_eval::check::{Checker, LISTED_BAD_ROWS, SplitCheck};
use glue_eval::data::Split;
use glue_eval::{FineTuneSettings, GlueError, Task};
use pipeline::checkpoint::load_tokenizer;
use pipeline::numbers::thousands;
use pipeline::problems::Problems;
use pipeline::report::table::Table;
use pipeline::source::glue::{Checksums, GluePlace};
use serde::Serialize;
use t5_model::text::Tokenizer;

use crate::terminal::output::{print, print_json};
use crate::terminal::{Asked, causes};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask data check GLUE\n",
    "  cargo xtask data check GLUE --tasks cola,rte --tokenizer spiece.model",
);

/// Show what GLUE's files contain, and what is wrong or unusual in them
///
/// For every file, counts its rows and those of the official file, rows that are not valid examples, rows
/// that repeat an earlier one, texts with several labels, and rows whose texts are in the training set. Also
/// shows the balance of labels and, with a tokenizer, the length of the prompts. Exits with 1 if there are
/// bad rows, or if files are missing, damaged, or do not match an existing SHA256SUMS.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// GLUE's files, in either of the layouts that `glue` reads, or `hf:nyu-mll/glue`
    #[arg(value_name = "GLUE")]
    glue: GluePlace,
    /// Tasks, such as cola,sst2 [default: those found]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<Task>,
    /// A tokenizer.json, spiece.model or folder, or bytes, to measure the length of prompts
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Maximum tokens per input; longer inputs are cut
    #[arg(long, value_name = "N", default_value_t = FineTuneSettings::default().input_length)]
    input_length: usize,
    /// Do not exit with 1 because of rows that are not valid examples
    #[arg(long)]
    skip_bad_rows: bool,
    /// Print JSON: everything that the table shows, with the names of files and labels
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TaskChecks {
    task: Task,
    splits: Vec<SplitCheck>,
    /// Splits that are missing; test sets may be.
    missing: Vec<String>,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let tokenizer = self.tokenizer.as_deref().map(load_tokenizer).transpose()?;
        let glue = self.glue.directory(if self.tasks.is_empty() { &Task::ALL } else { &self.tasks })?;
        let mut problems = Problems::default();
        let sums = Checksums::read(&glue)?;
        let agreeing = sums.and_then(|sums| problems.keep(sums.verify(&glue)).map(|()| sums.0.len()));
        let mut checks = Vec::new();
        for task in self.tasks(&glue)? {
            checks.push(self.check(task, &glue, tokenizer.as_ref(), &mut problems));
        }
        let bad_rows: usize = splits(&checks).map(|(_, split)| split.bad_rows).sum();
        if bad_rows > 0 && !self.skip_bad_rows {
            let bad_rows = thousands(bad_rows as u64);
            let advice = "--skip-bad-rows skips them";
            problems.add(anyhow!("rows that are not valid examples: {bad_rows}; {advice}"));
        }
        let result = problems.result();
        if self.json {
            let problems = result.as_ref().err().map(|error| causes(error, Asked::ByFlags));
            print_json(&serde_json::json!({ "tasks": checks, "problems": problems }))?;
        } else {
            print(&text(&checks, tokenizer.is_some()))?;
            if let Some(files) = agreeing {
                print(&format!("\nFiles that agree with {}: {files}\n", Checksums::NAME))?;
            }
        }
        result
    }

    /// The tasks asked for, or else those with any files.
    fn tasks(&self, glue: &Path) -> Result<Vec<Task>> {
        if !self.tasks.is_empty() {
            return Ok(self.tasks.clone());
        }
        let is_missing =
            |split: Split, task| matches!(split.find(task, glue), Err(GlueError::MissingFiles { .. }));
        let is_there = |task: &Task| !Split::all(*task).all(|split| is_missing(split, *task));
        let tasks: Vec<Task> = Task::ALL.into_iter().filter(is_there).collect();
        let (tsv, parquet) = (Split::Train.tsv(Task::Cola), Split::Train.parquet(Task::Cola));
        ensure!(
            !tasks.is_empty(),
            "{} holds no file of any task: looked for official TSV files, such as {}, and for the hub's Parquet files, such as {}",
            glue.display(),
            tsv.display(),
            parquet.display()
        );
        Ok(tasks)
    }

    fn check(
        &self,
        task: Task,
        glue: &Path,
        tokenizer: Option<&Tokenizer>,
        problems: &mut Problems,
    ) -> TaskChecks {
        let mut checker = Checker::new(task, tokenizer, self.input_length);
        let mut checks = TaskChecks { task, splits: Vec::new(), missing: Vec::new() };
        for split in Split::all(task) {
            match checker.check(split, glue) {
                Ok(check) => checks.splits.push(check),
                Err(error) => {
                    let is_missing = matches!(error, GlueError::MissingFiles { .. });
                    checks.missing.extend(is_missing.then(|| split.to_string()));
                    if split.is_labelled() || !is_missing {
                        problems.add(error.into());
                    }
                }
            }
        }
        checks
    }
}

fn splits(checks: &[TaskChecks]) -> impl Iterator<Item = (String, &SplitCheck)> {
    checks.iter().flat_map(|TaskChecks { task, splits, .. }| {
        splits.iter().map(move |split| (format!("{task} {}", split.split), split))
    })
}

/// The table, the balance of labels, and the bad rows.
fn text(checks: &[TaskChecks], with_lengths: bool) -> String {
    let mut text = table(checks, with_lengths).text();
    let labelled = || splits(checks).filter(|(_, split)| !split.labels.is_empty());
    let width = labelled().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let labels = labelled().map(|(name, split)| format!("{name:width$}  {}\n", balance(split)));
    text += &section("Labels", labels);
    let missing = checks.iter().filter(|task| !task.missing.is_empty());
    let missing = missing.map(|TaskChecks { task, missing, .. }| format!("{task}: {}\n", missing.join(", ")));
    text += &section("Missing", missing);
    let bad = splits(checks).flat_map(|(_, split)| {
        let rows = split.bad.iter();
        let rows = rows.map(|row| format!("{}{}: {}\n", row.path.display(), row.place, row.problem));
        let more = split.bad_rows.saturating_sub(LISTED_BAD_ROWS);
        rows.chain((more > 0).then(|| format!("… and {} more\n", thousands(more as u64))))
    });
    text + &section("Bad rows", bad)
}

/// Lines under a heading, if there are any.
fn section(heading: &str, lines: impl Iterator<Item = String>) -> String {
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("\n{heading}\n{lines}") }
}

fn table(checks: &[TaskChecks], with_lengths: bool) -> Table {
    let mut table =
        Table::new(["", "rows", "official", "bad", "repeated", "contradictory texts", "in train"]);
    if with_lengths {
        table.header.extend(["median tokens", "95 %", "longest", "cut"].map(str::to_owned));
    }
    let count = |number: usize| thousands(number as u64);
    for (name, split) in splits(checks) {
        let counts =
            [split.rows, split.official_rows, split.bad_rows, split.duplicates, split.conflicts].map(count);
        let mut row = vec![name];
        row.extend(counts);
        row.push(split.in_train.map(count).unwrap_or_default());
        if let Some(lengths) = &split.lengths {
            row.extend([lengths.median, lengths.percentile_95, lengths.max].map(count));
            row.push(share(lengths.truncated, split.rows - split.bad_rows));
        }
        table.rows.push(row);
    }
    table
}

/// `unacceptable 29.6 %, acceptable 70.4 %`.
fn balance(split: &SplitCheck) -> String {
    let all = split.labels.iter().map(|count| count.rows).sum();
    let labels = split.labels.iter().map(|count| format!("{} {}", count.label, share(count.rows, all)));
    labels.collect::<Vec<_>>().join(", ")
}

fn share(part: usize, all: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / all.max(1) as f64)
}
