//! Fine-tuning on GLUE.

use std::path::Path;

use anyhow::Result;
use fusion_core::Checkpoint;
use glue_eval::{FineTuneSettings, GlueReport, Task, fine_tune_tasks};
use serde::Serialize;
use t5_model::T5Config;

use super::Source;
use crate::compute::Compute;
use crate::model::tokenizer_for;
use crate::progress::FineTuningProgress;

/// A model that is fine-tuned on some or all tasks, each time afresh.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Glue {
    pub model: Source,
    pub tasks: Vec<Task>,
    #[serde(flatten)]
    pub settings: FineTuneSettings,
}

/// Fine-tunes the checkpoint in `model`, and scores it on the tasks' development sets.
pub fn fine_tune(
    model: &Path,
    tasks: &[Task],
    settings: &FineTuneSettings,
    files: &Path,
    tokenizer: Option<&Path>,
    compute: &Compute,
) -> Result<GlueReport> {
    let checkpoint = Checkpoint::open(model)?;
    let config = T5Config::of_checkpoint(&checkpoint)?;
    let tokenizer = tokenizer_for(model, &config, tokenizer)?;
    let mut progress = FineTuningProgress::new();
    let mut open = |_| compute.open(&config, &checkpoint).map_err(Into::into);
    let report = fine_tune_tasks(tasks, files, &tokenizer, settings, &mut open, &mut |event| {
        progress.observe(&event)
    })?;
    Ok(report)
}
