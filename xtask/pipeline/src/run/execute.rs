//! Runs the stages of a recipe in a directory.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use fusion_core::atomic::{RECORD, claim, remove_written};
use fusion_core::checkpoint::Checkpoint;
use serde_json::{Value, json};
use t5_model::text::Tokenizer;
use t5_model::train::Identity;

use super::journal::{self, Record};
use super::{RunFile, StageLock};
use crate::problems::{Remedy, mendable};
use crate::recipe::Recipe;
use crate::source::fetch_model;
use crate::stage::{Context, Input, Stage};
use crate::{Compute, Interrupted, Note, Watch};

/// The report that a caller may write into a run's directory.
pub const REPORT: &str = "report.md";

/// A recipe's run in a directory, which has a subdirectory for each stage.
pub struct Run<'a> {
    recipe: &'a Recipe,
    output: &'a Path,
    /// GLUE's files; without them, stages that read them are skipped.
    glue: Option<&'a Path>,
    watch: &'a dyn Watch,
}

/// How far a stage has got.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The result is there, and nothing that determines it is known to have changed.
    Finished,
    /// Finished or started, but with other settings or inputs.
    OutOfDate(Vec<String>),
    /// Started and can be resumed.
    Begun,
    /// There is neither a result nor anything to resume from.
    New,
    /// Needs files that were not given.
    WithoutFiles,
}

impl<'a> Run<'a> {
    /// `output` is the run's directory. Without `glue`, GLUE's files, stages that read them are skipped.
    pub fn new(recipe: &'a Recipe, output: &'a Path, glue: Option<&'a Path>, watch: &'a dyn Watch) -> Self {
        Run { recipe, output, glue, watch }
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }

    fn stage(&self, name: &str) -> Result<&'a Stage> {
        let stage = self.recipe.stages.iter().find(|stage| stage.name == name);
        stage.with_context(|| format!("there is no stage {name:?}"))
    }

    /// Where a stage's input is, fetching it if necessary.
    fn locate(&self, input: &Input) -> Result<PathBuf> {
        match input {
            Input::Path(path) => Ok(path.clone()),
            Input::Hub(model) => fetch_model(model, self.watch),
            Input::Stage(name) => Ok(self.stage(name)?.output_in(&self.directory(name))),
        }
    }

    /// What determines a stage's result: the recipe alone, except for inputs that are files.
    fn identity(&self, stage: &Stage) -> Result<Identity> {
        let mut settings = Identity::of_settings(&stage.settings()?, stage.work.neutral());
        if let Some(files) = self.glue.filter(|_| stage.work.glue_tasks().is_some()) {
            settings.insert("files", json!(std::path::absolute(files)?));
        }
        let mut inputs = BTreeMap::new();
        for input in stage.work.inputs() {
            let fingerprint = match input {
                Input::Stage(name) => journal::fingerprint(&self.identity(self.stage(name)?)?)?,
                Input::Path(path) if path.join("config.json").is_file() => {
                    Checkpoint::open(path)?.blake3()?
                }
                Input::Hub(model) => Checkpoint::open(&fetch_model(model, self.watch)?)?.blake3()?,
                Input::Path(path) => Tokenizer::load(path)?.fingerprint().to_owned(),
            };
            inputs.insert(input.to_string(), fingerprint);
        }
        Ok(journal::identity(settings, inputs))
    }

    /// How far a stage has got, judging by its directory.
    pub fn state(&self, stage: &Stage) -> Result<State> {
        let directory = self.directory(&stage.name);
        let needs_files = stage.work.glue_tasks().is_some() && self.glue.is_none();
        let unless_changed = |state, earlier: &Identity| {
            let changes = journal::changes(&self.identity(stage)?, earlier);
            Ok(if changes.is_empty() { state } else { State::OutOfDate(changes) })
        };
        match Record::read(&directory)? {
            Some(_) if needs_files => Ok(State::Finished),
            Some(record) => unless_changed(State::Finished, &record.identity),
            None if needs_files => Ok(State::WithoutFiles),
            None => match journal::begun(&directory)?.filter(|_| has_results(stage, &directory)) {
                None => Ok(State::New),
                Some(begun) => unless_changed(State::Begun, &begun),
            },
        }
    }

    /// Runs the stages that have not finished; `stages` lists each after its inputs. With `redo`, outdated
    /// results are replaced.
    pub fn execute(&self, stages: &[&Stage], redo: bool, compute: &Compute) -> Result<()> {
        let stages_and_reports = self.recipe.stages.iter().map(|stage| stage.name.as_str());
        let names: Vec<&str> = stages_and_reports.chain([RunFile::NAME, REPORT]).collect();
        claim(self.output, &names)?;
        RunFile::new(self.recipe).write(self.output)?;
        for stage in stages {
            if self.watch.wants_stop() {
                return Err(Interrupted { left: None, resumes: true }.into());
            }
            self.run(stage, redo, compute)?;
        }
        Ok(())
    }

    /// Runs a stage if it has not finished; all of its inputs have.
    fn run(&self, stage: &Stage, redo: bool, compute: &Compute) -> Result<()> {
        let (name, directory) = (&stage.name, self.directory(&stage.name));
        // Reading needs no lock; a writer looks again once it holds the lock.
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
            State::OutOfDate(changes) if !redo => {
                let changes = changes.join("; ");
                let problem = format!("what there is of stage {name:?} is out of date: {changes}");
                return Err(mendable(problem, Remedy::Redo));
            }
            State::OutOfDate(_) => {
                if remove_written(&directory)? {
                    self.watch.note(name, &Note::Kept { directory: &directory });
                }
            }
            State::Begun | State::New => {}
        }
        let identity = self.identity(stage)?;
        self.watch.note(name, &Note::Begins(stage.kind.name));
        let start = Instant::now();
        let names = [stage.kind.output, journal::FILE, journal::BEGUN];
        claim(&directory, &names.iter().chain(stage.work.beside()).copied().collect::<Vec<_>>())?;
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
        let locate = |input: &Input| self.locate(input);
        let (name, glue, watch) = (&stage.name, self.glue, self.watch);
        let output = &stage.output_in(directory);
        stage.work.run(&Context { name, directory, output, glue, compute, watch, locate: &locate })
    }

    /// The stages named in `only` and everything they depend on, in order; all stages if `only` is empty.
    pub fn selected(&self, only: &[String]) -> Result<Vec<&'a Stage>> {
        let mut wanted: Vec<&str> = only.iter().map(String::as_str).collect();
        let mut at = 0;
        while let Some(name) = wanted.get(at) {
            let known: Vec<&str> = self.recipe.stages.iter().map(|stage| stage.name.as_str()).collect();
            ensure!(known.contains(name), "there is no stage {name:?}; the stages are: {}", known.join(", "));
            let inputs = self.stage(name)?.work.inputs();
            let new: Vec<&str> = inputs.into_iter().filter_map(Input::stage).collect();
            wanted.extend(new);
            at += 1;
        }
        let is_wanted = |stage: &&Stage| only.is_empty() || wanted.contains(&stage.name.as_str());
        Ok(self.recipe.stages.iter().filter(is_wanted).collect())
    }
}

/// Whether an unfinished stage left anything that its settings affect: a result, or something to resume from.
fn has_results(stage: &Stage, directory: &Path) -> bool {
    let begun = fs::read_dir(directory.join(stage.work.checkpoints()));
    let counts = |entry: io::Result<DirEntry>| entry.is_ok_and(|entry| entry.file_name() != RECORD);
    stage.output_in(directory).exists() || begun.is_ok_and(|mut entries| entries.any(counts))
}
