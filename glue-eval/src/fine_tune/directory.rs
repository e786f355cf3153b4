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

use fusion_core::atomic::{claim, remove_written, write_file_atomically};
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

const RESULT: &str = "result.json";

/// `result.json`.
#[derive(Serialize, Deserialize)]
struct Finished {
    identity: Identity,
    tasks: Vec<TaskReport>,
}

impl Keep<'_> {
    pub(super) fn model(&self) -> PathBuf {
        self.directory.join("model")
    }

    fn checkpoint(&self) -> PathBuf {
        self.directory.join("checkpoint")
    }

    pub(super) fn checkpoints(&self) -> Checkpoints {
        Checkpoints::Newest(self.checkpoint())
    }

    /// Reserves the names of what a fine-tuning leaves.
    pub(super) fn claim(&self) -> Result<(), GlueError> {
        let names = ["checkpoint", "model", "predictions", RESULT, TensorBoard::FOLDER];
        Ok(claim(self.directory, &names).map_err(TrainError::from)?)
    }

    /// The reports of an earlier call, if that has finished.
    pub(super) fn finished(&self, identity: &Identity) -> Result<Option<Vec<TaskReport>>, GlueError> {
        let path = self.directory.join(RESULT);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = fs::read(&path).map_err(|source| GlueError::Io { path: path.clone(), source })?;
        let finished: Finished = serde_json::from_slice(&bytes)
            .map_err(|error| GlueError::Damaged { path: path.clone(), problem: error.to_string() })?;
        identity.check(&finished.identity, &path).map_err(TrainError::from)?;
        Ok(Some(finished.tasks))
    }

    pub(super) fn predictions(
        &self,
        at: AtStep,
        prompts: &[Prompts<'_>],
        sets: &[Vec<Prediction>],
    ) -> Result<(), GlueError> {
        let Some(task) = prompts.first().map(|prompts| prompts.task) else { return Ok(()) };
        let name = format!("{}-{}.jsonl", task.spec().name, at.name());
        write(&self.directory.join("predictions"), &name, &predictions::lines(prompts, sets))
    }

    pub(super) fn submission(
        &self,
        prompts: &[Prompts<'_>],
        sets: &[Vec<Prediction>],
    ) -> Result<(), GlueError> {
        for (number, (prompts, predictions)) in prompts.iter().zip(sets).enumerate() {
            let set = &prompts.task.spec().evaluation_sets[number];
            let name = submission::name(prompts.task, set);
            write(self.submission, &name, &submission::file(prompts, predictions))?;
        }
        Ok(())
    }

    /// Writes the reports in place of the checkpoint.
    pub(super) fn finish(&self, identity: Identity, reports: &[TaskReport]) -> Result<(), GlueError> {
        let finished = Finished { identity, tasks: reports.to_vec() };
        write(self.directory, RESULT, &serde_json::to_string_pretty(&finished).unwrap_or_default())?;
        let checkpoint = self.checkpoint();
        if checkpoint.exists() {
            remove_written(&checkpoint).map_err(TrainError::from)?;
        }
        Ok(())
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), GlueError> {
    claim(folder, &[name]).map_err(TrainError::from)?;
    Ok(write_file_atomically(&folder.join(name), text.as_bytes()).map_err(TrainError::from)?)
}
