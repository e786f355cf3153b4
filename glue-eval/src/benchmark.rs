//! One fine-tuning after another: for every seed, and for every task or their mixture.

use std::collections::BTreeMap;
use std::path::Path;

use fusion_core::atomic::claim;
use fusion_core::lineage::Lineage;
use serde_json::Value;
use t5_model::text::Tokenizer;
use t5_model::train::{Control, OpenSession, TrainError};

use crate::data::{TaskData, read_task};
use crate::error::GlueError;
use crate::fine_tune::FineTuneSettings;
use crate::fine_tune::{FineTuning, Keep, Progress};
use crate::report::{GlueReport, SeedReport};
use crate::task::Task;

/// Fine-tuning a model on some or all tasks, with one or several seeds.
pub struct Glue<'a> {
    /// The tasks to fine-tune on.
    pub tasks: &'a [Task],
    /// The folder of GLUE's files, with a folder per task.
    pub files: &'a Path,
    /// The model's.
    pub tokenizer: &'a Tokenizer,
    /// See [`FineTuning::beside`].
    pub beside: &'a BTreeMap<String, Vec<u8>>,
    /// How to fine-tune, and with which seeds.
    pub settings: &'a FineTuneSettings,
    /// Where fine-tunings leave their files: in `seed-0/cola` or `seed-0/mixture`, and those for GLUE's server in
    /// `seed-0/submission`. Without it, nothing is kept and nothing can be resumed.
    pub directory: Option<&'a Path>,
    /// The lineage of the model to fine-tune.
    pub lineage: &'a Lineage,
    /// See [`Keep::identity`].
    pub identity: &'a BTreeMap<String, Value>,
}

impl Glue<'_> {
    /// Fine-tunes with every seed. All files are read before the first step, so that a bad row is not found hours later.
    /// `None` if it was stopped; another call continues from there.
    ///
    /// # Errors
    /// [`GlueError`]; what was kept before stays whole.
    pub fn run(
        &self,
        open: &mut OpenSession<'_>,
        control: &Control<'_>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<GlueReport>, GlueError> {
        self.settings.check()?;
        if self.settings.submission.is_some() && self.directory.is_none() {
            let problem = "the files need a directory to be written to".to_owned();
            return Err(GlueError::Setting { name: "submission", problem });
        }
        for &task in self.tasks {
            self.read(task)?;
        }
        let mut report = GlueReport { settings: self.settings.clone(), seeds: Vec::new() };
        for seed in self.settings.all_seeds() {
            let mut tasks = Vec::new();
            let together = if self.settings.mixture { self.tasks.len().max(1) } else { 1 };
            for tasks_of_model in self.tasks.chunks(together) {
                let data: Vec<TaskData> =
                    tasks_of_model.iter().map(|&task| self.read(task)).collect::<Result<_, _>>()?;
                match self.fine_tune(&data, seed, open, control, progress)? {
                    Some(reports) => tasks.extend(reports),
                    None => return Ok(None),
                }
            }
            report.seeds.push(SeedReport { seed, tasks });
        }
        Ok(Some(report))
    }

    fn read(&self, task: Task) -> Result<TaskData, GlueError> {
        let mut data = read_task(task, self.files, self.settings.bad_rows())?;
        if self.settings.submission.is_some() {
            data.read_test(self.files, self.settings.bad_rows())?;
        }
        Ok(data)
    }

    fn fine_tune(
        &self,
        data: &[TaskData],
        seed: u64,
        open: &mut OpenSession<'_>,
        control: &Control<'_>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<Vec<crate::fine_tune::TaskReport>>, GlueError> {
        let mut tuning = FineTuning {
            tasks: data,
            tokenizer: self.tokenizer,
            beside: self.beside,
            settings: self.settings,
            seed,
            lineage: self.lineage,
            keep: None,
        };
        let Some(directory) = self.directory else { return tuning.run(open, control, progress) };
        let name = format!("seed-{seed}");
        let within = directory.join(&name);
        control.first(|| {
            claim(directory, &[&name])?;
            Ok::<_, TrainError>(claim(&within, &[tuning.name(), "submission"])?)
        })?;
        let directory = within;
        let (own, submission) = (directory.join(tuning.name()), directory.join("submission"));
        tuning.keep = Some(Keep { directory: &own, submission: &submission, identity: self.identity });
        tuning.run(open, control, progress)
    }
}
