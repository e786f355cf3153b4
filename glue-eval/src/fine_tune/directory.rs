//! What a fine-tuning leaves in its directory:
//!
//! - `checkpoint/`: while it is under way, a Hugging Face checkpoint with the optimiser's moments and the state;
//! - `predictions/cola-best.jsonl`, `cola-last.jsonl`: one example per line, of the best and of the newest evaluation;
//! - `tensorboard/`: curves;
//! - `result.json`: its reports, written last;
//! - `model/`: the model of the last step, if it is to be kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fusion_core::atomic::write_file_atomically;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use t5_model::TensorBoard;
use t5_model::train::{Checkpoints, Identity, TrainError};

use super::outcome::TaskReport;
use super::predictions;
use super::settings::AtStep;
use super::submission;
use crate::answer::Prompts;
use crate::error::GlueError;
use crate::score::Prediction;

/// Where a fine-tuning leaves its files.
#[derive(Clone, Copy, Debug)]
pub struct Keep<'a> {
    /// For everything below; created if it does not exist.
    pub directory: &'a Path,
    /// For GLUE's server: the files of one seed's tasks together.
    pub submission: &'a Path,
    /// What decides the result besides settings, tasks and seed: names or hashes of the model and the data. What was
    /// begun with other values is not continued; errors call them by these keys.
    pub identity: &'a BTreeMap<String, Value>,
}

/// A directory in use.
pub(super) struct Directory<'a> {
    path: &'a Path,
    submission: &'a Path,
    curves: Option<TensorBoard>,
}

/// `result.json`.
#[derive(Serialize, Deserialize)]
struct Finished {
    identity: Identity,
    tasks: Vec<TaskReport>,
}

impl<'a> Directory<'a> {
    pub fn create(keep: &Keep<'a>) -> Result<Self, GlueError> {
        create(keep.directory)?;
        Ok(Directory { path: keep.directory, submission: keep.submission, curves: None })
    }

    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::Newest(self.checkpoint())
    }

    /// The reports of an earlier call, if that has finished.
    pub fn finished(&self, identity: &Identity) -> Result<Option<Vec<TaskReport>>, GlueError> {
        let path = self.path.join("result.json");
        if !path.exists() {
            return Ok(None);
        }
        let bytes = fs::read(&path).map_err(|source| GlueError::Io { path: path.clone(), source })?;
        let finished: Finished = serde_json::from_slice(&bytes)
            .map_err(|error| GlueError::Damaged { path: path.clone(), problem: error.to_string() })?;
        identity.check(&finished.identity, &path).map_err(TrainError::from)?;
        Ok(Some(finished.tasks))
    }

    /// Begins curves after this step.
    pub fn begin_curves(&mut self, step: u64) -> Result<(), GlueError> {
        self.curves = Some(TensorBoard::open(self.path, step).map_err(TrainError::from)?);
        Ok(())
    }

    pub fn curves(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<(), GlueError> {
        let Some(curves) = &mut self.curves else { return Ok(()) };
        let scalars = scalars.iter().map(|(name, value)| (name.as_str(), *value));
        Ok(curves.append(step, scalars).map_err(TrainError::from)?)
    }

    pub fn predictions(
        &self,
        at: AtStep,
        prompts: &[Prompts<'_>],
        sets: &[Vec<Prediction>],
    ) -> Result<(), GlueError> {
        let Some(task) = prompts.first().map(|prompts| prompts.task) else { return Ok(()) };
        let name = format!("{}-{}.jsonl", task.spec().name, at.name());
        write(&self.path.join("predictions"), &name, &predictions::lines(prompts, sets))
    }

    pub fn submission(&self, prompts: &[Prompts<'_>], sets: &[Vec<Prediction>]) -> Result<(), GlueError> {
        for (number, (prompts, predictions)) in prompts.iter().zip(sets).enumerate() {
            let set = &prompts.task.spec().evaluation_sets[number];
            let name = submission::name(prompts.task, set);
            write(self.submission, &name, &submission::file(prompts, predictions))?;
        }
        Ok(())
    }

    /// Writes the reports in place of the checkpoint.
    pub fn finish(&self, identity: Identity, reports: &[TaskReport]) -> Result<(), GlueError> {
        let finished = Finished { identity, tasks: reports.to_vec() };
        write(self.path, "result.json", &serde_json::to_string_pretty(&finished).unwrap_or_default())?;
        let checkpoint = self.checkpoint();
        if checkpoint.exists() {
            let io = |source| GlueError::Io { path: checkpoint.clone(), source };
            fs::remove_dir_all(&checkpoint).map_err(io)?;
        }
        Ok(())
    }
}

fn create(folder: &Path) -> Result<(), GlueError> {
    fs::create_dir_all(folder).map_err(|source| GlueError::Io { path: folder.to_owned(), source })
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), GlueError> {
    create(folder)?;
    Ok(write_file_atomically(&folder.join(name), text.as_bytes()).map_err(TrainError::from)?)
}
