//! Fine-tuning on GLUE.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use fusion_core::checkpoint::Checkpoint;
use glue_eval::{FineTuneSettings, GlueReport, Task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use t5_model::T5Config;
use toml::Spanned;

use super::{Effects, Finished, Forecast, Gives, Input, Keys, Kind, Known, Published, Shown, Training, Work};
use crate::checkpoint::{Beside, Made, lineage_to_continue, tokenizer_for};
use crate::recipe::schema::both;
use crate::{Compute, Interrupted, Note, Stoppable, Warning, Watch};

/// A model to fine-tune on some or all tasks, starting over for each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Glue {
    /// The checkpoint from which fine-tuning starts for every task.
    pub model: Input,
    /// In a recipe, all tasks by default.
    pub tasks: Vec<Task>,
    /// The same for every task.
    #[serde(flatten)]
    pub settings: FineTuneSettings,
}

/// Settings that make no difference to a finished fine-tuning, or only in the last bits of its weights.
const NEUTRAL: &[&str] =
    &["checkpoint_every", "checkpoint_minutes", "evaluation_batch_size", "log_every", "micro_batch_size"];

/// `glue`, whose result is a [`GlueReport`].
pub const KIND: Kind = Kind {
    name: "glue",
    about: "Fine-tunes a model on GLUE and scores it. Without GLUE's files, it is left out.",
    gives: None,
    output: "glue.json",
    table: Some("fine_tuning"),
    keys: both::<OwnKeys, FineTuneSettings>,
    computes: true,
    together: true,
    read,
    show,
    arm: None,
};

#[derive(Deserialize, JsonSchema)]
struct OwnKeys {
    /// The model to fine-tune: a stage, a checkpoint's directory, or `hf:ORG/NAME[@REVISION]`; always needed.
    #[schemars(with = "String")]
    model: Spanned<String>,
    /// The tasks to fine-tune on [default: all eight].
    #[schemars(with = "Option<Vec<Task>>")]
    tasks: Option<Vec<Spanned<String>>>,
    /// What others have measured of such a model: a `source`, and any of `loss`, `accuracy` (in percent) and `glue` (the
    /// average over tasks). Plans show it, and reports beside what was measured here.
    #[schemars(with = "Option<Published>")]
    #[expect(dead_code, reason = "read for all kinds alike")]
    published: Option<()>,
}

fn read(keys: &mut Keys<'_>) -> Result<Arc<dyn Work>> {
    let OwnKeys { model, tasks: names, .. } = keys.own()?;
    let model = keys.input(model, Gives::Model)?;
    let task = |name: Spanned<String>| {
        name.get_ref().parse::<Task>().map_err(|error| keys.error_at(name.span(), error))
    };
    let tasks = match names {
        Some(names) => names.into_iter().map(task).collect::<Result<_>>()?,
        None => Task::ALL.to_vec(),
    };
    let settings: FineTuneSettings = keys.rest()?;
    settings.check().map_err(|error| keys.error(error))?;
    Ok(Arc::new(Glue { model, tasks, settings }))
}

fn show(finished: &Finished<'_>) -> Result<Shown> {
    Ok(Shown { glue: Some(finished.result()?), ..Shown::parameters(finished)? })
}

impl Work for Glue {
    fn effects(&self) -> Effects {
        Effects {
            neutral: NEUTRAL,
            measuring: &[],
            keeping: &["save_models"],
            // Each seed is a fine-tuning of its own, and each task, unless they are mixed.
            extending: if self.settings.mixture { &["seeds"] } else { &["seeds", "tasks"] },
        }
    }

    fn inputs(&self) -> Vec<&Input> {
        vec![&self.model]
    }

    fn glue_tasks(&self) -> Option<&[Task]> {
        Some(&self.tasks)
    }

    fn seed(&self) -> Option<u64> {
        Some(self.settings.seed)
    }

    fn with_seed(&self, seed: u64) -> Option<Arc<dyn Work>> {
        Some(Arc::new(Glue { settings: FineTuneSettings { seed, ..self.settings.clone() }, ..self.clone() }))
    }

    fn checkpoints(&self) -> String {
        format!("seed-{}", self.settings.seed)
    }

    fn forecast(&self, known: &Known<'_>) -> Result<Forecast> {
        let model = known.model(&self.model)?;
        let training = model.as_ref().map(|model| Training::of_fine_tuning(model, &self.settings));
        Ok(Forecast { training, ..Forecast::default() })
    }

    fn run(&self, context: &super::Context<'_>) -> Result<Value> {
        let places = Places {
            name: context.name,
            model: &context.locate(&self.model)?,
            files: context.glue.context("GLUE's files were not given")?,
            tokenizer: None,
            directory: Some(context.directory),
        };
        let report = fine_tune(&places, &self.tasks, &self.settings, context.compute, context.watch)?;
        context.write_json(&report)
    }
}

/// The files that fine-tuning works with.
pub struct Places<'a> {
    /// Of the work, for whoever follows it.
    pub name: &'a str,
    /// The checkpoint to fine-tune.
    pub model: &'a Path,
    /// GLUE's files.
    pub files: &'a Path,
    /// Defaults to the model's own.
    pub tokenizer: Option<&'a Path>,
    /// Where each fine-tuning's results are kept, if anywhere; an interrupted one resumes from there.
    pub directory: Option<&'a Path>,
}

/// Fine-tunes the checkpoint, and scores it on the tasks' development sets.
pub fn fine_tune(
    places: &Places<'_>,
    tasks: &[Task],
    settings: &FineTuneSettings,
    compute: &Compute,
    watch: &dyn Watch,
) -> Result<GlueReport> {
    let (checkpoint, config) = T5Config::open(places.model)?;
    let tokenizer = tokenizer_for(places.model, &config, places.tokenizer)?;
    let lineage = lineage_to_continue(&checkpoint)?;
    let beside = Beside::of(&[("", places.model)], Made::Another)?;
    if settings.save_models {
        beside.warnings.iter().for_each(|warning| watch.note(places.name, &Note::Warning(warning)));
    }
    let glue = glue_eval::Glue {
        tasks,
        files: places.files,
        tokenizer: &tokenizer,
        beside: &beside.files,
        settings,
        directory: places.directory,
        lineage: &lineage,
        identity: &identity(places.files, lineage.blake3.clone(), compute)?,
    };
    let training = Training::of_fine_tuning(&config, settings);
    let memory = training.memory(compute.backend(), compute.how());
    for warning in memory.iter().flat_map(|memory| Warning::of_memory(memory, &compute.how().device)) {
        watch.note(places.name, &Note::Warning(&warning));
    }
    let mut progress = watch.fine_tuning(places.name);
    let mut open = |resumed: Option<&Path>| match resumed {
        None => compute.open(&config, &checkpoint).map_err(Into::into),
        Some(directory) => Ok(compute.open(&config, &Checkpoint::open(directory)?)?),
    };
    // Without a directory there is nothing to save, so no point at which to stop.
    let stoppable = places.directory.map(|_| Stoppable::new(watch));
    let report = glue.run(&mut open, &compute.control(watch), &mut |event| progress(&event))?;
    drop(stoppable);
    report.ok_or_else(|| Interrupted { left: None, resumes: true }.into())
}

/// What determines the result of fine-tuning besides its settings.
fn identity(files: &Path, model: Option<String>, compute: &Compute) -> Result<BTreeMap<String, Value>> {
    let files = json!(std::path::absolute(files)?);
    let inputs = [("model".to_owned(), json!(model)), ("files".to_owned(), files)];
    Ok(inputs.into_iter().chain(compute.identity()).collect())
}
