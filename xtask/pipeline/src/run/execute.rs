//! Running the stages of a recipe in a directory.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use fusion_core::atomic::write_file_atomically;
use fusion_core::checkpoint::Checkpoint;
use serde::Serialize;
use serde_json::{Value, json};
use t5_model::text::Tokenizer;
use t5_model::train::Identity;

use super::journal::{self, Record};
use crate::source::fetch_model;
use crate::stage::fuse::{NamedModel, PlannedFusion};
use crate::stage::pretrain::Start;
use crate::stage::{Source, Stage, Work, glue, result_in};
use crate::{Compute, Interrupted, Note, Watch};

/// A run's directory, with one directory for each stage.
pub struct Stages<'a> {
    stages: &'a [Stage],
    output: &'a Path,
    /// GLUE's files; without them, its stages are left out.
    glue: Option<&'a Path>,
    watch: &'a dyn Watch,
}

/// How far a stage is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Finished,
    /// Finished or begun, but with other settings or inputs.
    OutOfDate(Vec<String>),
    /// Begun, to be gone on with.
    Begun,
    New,
    /// It needs files that were not given.
    WithoutFiles,
}

/// A stage is one process's as long as this lives: another may replace what this one is writing. Different stages of a
/// run may have different processes.
pub struct StageLock {
    _file: File,
}

impl StageLock {
    pub fn take(output: &Path, stage: &str) -> Result<Self> {
        fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
        // Beside the stage's directory, which may be removed; stages' names do not begin with a dot.
        let path = output.join(format!(".{stage}.lock"));
        let opened = File::options().write(true).create(true).truncate(false).open(&path);
        let file = opened.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                bail!("another process is at work on stage {stage:?} in {}", output.display())
            }
            // Not all file systems have locks. That must not keep anybody from running there.
            Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
            _ => Ok(StageLock { _file: file }),
        }
    }
}

impl<'a> Stages<'a> {
    pub fn new(stages: &'a [Stage], output: &'a Path, glue: Option<&'a Path>, watch: &'a dyn Watch) -> Self {
        Stages { stages, output, glue, watch }
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }

    fn stage(&self, name: &str) -> Result<&'a Stage> {
        self.stages
            .iter()
            .find(|stage| stage.name == name)
            .with_context(|| format!("there is no stage {name:?}"))
    }

    /// Where a stage's input lies, once it has been fetched.
    fn locate(&self, source: &Source) -> Result<PathBuf> {
        match source {
            Source::Path(path) => Ok(path.clone()),
            Source::Hub(model) => fetch_model(model, self.watch),
            Source::Stage(name) => Ok(result_in(&self.stage(name)?.work, &self.directory(name))),
        }
    }

    /// What decides a stage's result. Follows from the recipe alone but for inputs that are files.
    fn identity(&self, stage: &Stage) -> Result<Identity> {
        let mut settings = Identity::of_settings(&stage.work, stage.work.neutral());
        if let (Work::Glue(_), Some(files)) = (&stage.work, self.glue) {
            settings.insert("files", json!(std::path::absolute(files)?));
        }
        let mut inputs = BTreeMap::new();
        for source in stage.work.inputs() {
            let fingerprint = match source {
                Source::Stage(name) => journal::fingerprint(&self.identity(self.stage(name)?)?)?,
                Source::Path(path) if path.join("config.json").is_file() => {
                    Checkpoint::open(path)?.blake3()?
                }
                Source::Hub(model) => Checkpoint::open(&fetch_model(model, self.watch)?)?.blake3()?,
                Source::Path(path) => Tokenizer::load(path)?.fingerprint().to_owned(),
            };
            inputs.insert(source.to_string(), fingerprint);
        }
        Ok(journal::identity(settings, inputs))
    }

    pub fn state(&self, stage: &Stage) -> Result<State> {
        let directory = self.directory(&stage.name);
        let needs_files = matches!(stage.work, Work::Glue(_)) && self.glue.is_none();
        match Record::read(&directory)? {
            Some(_) if needs_files => Ok(State::Finished),
            Some(record) => match journal::changes(&self.identity(stage)?, &record.identity) {
                changes if changes.is_empty() => Ok(State::Finished),
                changes => Ok(State::OutOfDate(changes)),
            },
            None if needs_files => Ok(State::WithoutFiles),
            None => match journal::begun(&directory)? {
                None => Ok(State::New),
                Some(_) if !has_results(&stage.work, &directory) => Ok(State::New),
                Some(begun) => match journal::changes(&self.identity(stage)?, &begun) {
                    changes if changes.is_empty() => Ok(State::Begun),
                    changes => Ok(State::OutOfDate(changes)),
                },
            },
        }
    }

    /// Runs a stage if it is not finished; all of its inputs are. With `redo`, a result that is out of date is replaced.
    pub fn run(&self, stage: &Stage, redo: bool, compute: &Compute) -> Result<()> {
        let (name, directory) = (&stage.name, self.directory(&stage.name));
        // Reading needs no lock; who is to write looks again with it.
        let _lock = match self.state(stage)? {
            State::Finished | State::WithoutFiles => None,
            _ => Some(StageLock::take(self.output, name)?),
        };
        match self.state(stage)? {
            State::Finished => {
                self.watch.note(name, &Note::FinishedBefore);
                return Ok(());
            }
            State::WithoutFiles => {
                self.watch.note(name, &Note::WithoutGlue);
                return Ok(());
            }
            State::OutOfDate(changes) if !redo => bail!(
                "what there is of stage {name:?} is out of date: {}; --redo replaces it and what follows from it, \
                 --output keeps it and begins elsewhere",
                changes.join("; ")
            ),
            State::OutOfDate(_) => {
                fs::remove_dir_all(&directory)
                    .with_context(|| format!("cannot remove {}", directory.display()))?;
            }
            State::Begun | State::New => {}
        }
        let identity = self.identity(stage)?;
        self.watch.note(name, &Note::Begins(stage.work.kind()));
        let start = Instant::now();
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        journal::begin(&identity, &directory)?;
        let result = self.work(stage, &directory, compute);
        let result = result.map_err(|error| match error.is::<Interrupted>() {
            true => error,
            false => error.context(format!("stage {name:?} failed")),
        })?;
        let seconds = start.elapsed().as_secs_f64();
        Record::new(identity, result, seconds).write(&directory)?;
        self.watch.note(name, &Note::Finished { seconds });
        Ok(())
    }

    fn work(&self, stage: &Stage, directory: &Path, compute: &Compute) -> Result<Value> {
        let watch = self.watch;
        let output = result_in(&stage.work, directory);
        match &stage.work {
            Work::Tokenizer(work) => work.run(&output),
            Work::Pretrain(work) => {
                let from = match &work.start {
                    Start::Random(_) => None,
                    Start::Model(source) => Some(self.locate(source)?),
                };
                let tokenizer = self.locate(&work.data.tokenizer)?;
                let trained =
                    work.run(from.as_deref(), &tokenizer, directory, compute, &stage.name, watch)?;
                Ok(serde_json::to_value(trained)?)
            }
            Work::Fuse(work) => {
                let parents = work.parents.iter().map(|source| {
                    Ok(NamedModel { label: source.to_string(), directory: self.locate(source)? })
                });
                let fusion = PlannedFusion::new(&parents.collect::<Result<Vec<_>>>()?, &work.settings)?;
                let (fusion, calibration) = match &work.calibrate {
                    None => (fusion, None),
                    Some(calibrate) => {
                        let tokenizer = self.locate(&calibrate.data.tokenizer)?;
                        let (weights, outcome) = calibrate.run(
                            &fusion,
                            &work.settings,
                            &tokenizer,
                            compute,
                            &stage.name,
                            watch,
                        )?;
                        watch.note(&stage.name, &Note::Calibrated(&outcome));
                        (fusion.calibrated(weights, &outcome)?, Some(outcome))
                    }
                };
                fusion.warnings.iter().for_each(|warning| watch.note(&stage.name, &Note::Warning(warning)));
                fusion.write(&output, &stage.name, None, watch)?;
                write_file_atomically(&directory.join("plan.txt"), fusion.plan.to_string().as_bytes())?;
                let (parameters, warnings) = (fusion.plan.parameter_count(), &fusion.warnings);
                let mut result = json!({ "parameters": parameters, "warnings": warnings });
                if let Some(calibration) = calibration {
                    result["calibration"] = serde_json::to_value(calibration)?;
                }
                Ok(result)
            }
            Work::Glue(work) => {
                let files = self.glue.context("GLUE's files were not given")?;
                let model = self.locate(&work.model)?;
                let places =
                    glue::Places { model: &model, files, tokenizer: None, directory: Some(directory) };
                let report = glue::fine_tune(&places, &work.tasks, &work.settings, compute, watch)?;
                write_json(&output, &report)
            }
            Work::Evaluate(work) => {
                let tokenizer = self.locate(&work.data.tokenizer)?;
                let score = work.run(&self.locate(&work.model)?, Some(&tokenizer), compute)?;
                write_json(&output, &score)
            }
        }
    }

    /// The stages called `only` with all that they need, in order; all stages without any.
    pub fn selected(&self, only: &[String]) -> Result<Vec<&'a Stage>> {
        let mut wanted: Vec<&str> = only.iter().map(String::as_str).collect();
        let mut at = 0;
        while let Some(name) = wanted.get(at) {
            let known: Vec<&str> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
            ensure!(known.contains(name), "there is no stage {name:?}; the stages are: {}", known.join(", "));
            let inputs = self.stage(name)?.work.inputs();
            let new: Vec<&str> = inputs.into_iter().filter_map(Source::stage).collect();
            wanted.extend(new);
            at += 1;
        }
        Ok(self
            .stages
            .iter()
            .filter(|stage| only.is_empty() || wanted.contains(&stage.name.as_str()))
            .collect())
    }
}

/// Whether a begun stage left anything that its settings had a part in: a result, or checkpoints to go on from.
fn has_results(work: &Work, directory: &Path) -> bool {
    let first = match work {
        Work::Glue(work) => format!("seed-{}", work.settings.seed),
        _ => "checkpoints".to_owned(),
    };
    let begun = fs::read_dir(directory.join(first));
    result_in(work, directory).exists() || begun.is_ok_and(|mut entries| entries.next().is_some())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<Value> {
    let value = serde_json::to_value(value)?;
    write_file_atomically(path, format!("{value:#}\n").as_bytes())?;
    Ok(value)
}
