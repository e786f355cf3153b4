//! Runs the stages of a recipe in a directory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use fusion_core::atomic::{RECORD, claim, remove_written};
use fusion_core::checkpoint::Checkpoint;
use rayon::ThreadPoolBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use t5_model::Precision;
use t5_model::train::{Difference, Identity, kept_model};

use super::jobs::Turn;
use super::journal::{self, Changes, Clock, Record};
use super::schedule::Schedule;
use super::{LeftOut, Machine, RunFile, StageLock, There, forecast, forecasts, jobs};
use crate::checkpoint::load_tokenizer;
use crate::problems::{Remedy, mendable};
use crate::recipe::Recipe;
use crate::stage::{Context, Forecast, Gives, Input, Stage};
use crate::{Compute, Interrupted, Note, Watch};

/// The report that a caller may write into a run's directory.
pub const REPORT: &str = "report.md";
/// The same with figures.
pub const PAGE: &str = "report.html";

/// A recipe's run in a directory, which has a subdirectory for each stage.
pub struct Run<'a> {
    recipe: &'a Recipe,
    output: &'a Path,
    /// GLUE's files; without them, stages that read them are skipped.
    glue: Option<&'a Path>,
    /// What the user asked for, in the user's words.
    command: &'a [String],
    watch: &'a dyn Watch,
    /// The steps of stages whose number follows from what stages cost, as far as they have been asked for,
    /// with the tokenizers that there were.
    steps: Mutex<BTreeMap<(String, Vec<PathBuf>), u64>>,
}

/// How to run stages.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// What to compute on where a stage does not say.
    pub compute: &'a Compute,
    /// The number of stages that may run at the same time.
    pub jobs: NonZeroUsize,
    /// Whether outdated results are replaced.
    pub redo: bool,
}

impl<'a> How<'a> {
    /// One stage at a time, and outdated results are an error.
    pub fn on(compute: &'a Compute) -> Self {
        How { compute, jobs: NonZeroUsize::MIN, redo: false }
    }
}

/// How far a stage has got.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The result is there, and nothing that determines it is known to have changed. Settings of what was
    /// measured on the way may have.
    Finished(Vec<Difference>),
    /// Finished or started, but with other settings or inputs.
    OutOfDate(Vec<String>),
    /// Started and can be resumed.
    Begun,
    /// There is neither a result nor anything to resume from.
    New,
    /// Needs files that were not given.
    WithoutFiles,
}

/// Whether a stage begins.
#[derive(Deserialize, Serialize)]
enum Beginning<T> {
    /// With this.
    Begun(T),
    /// There is nothing to do.
    Finished,
    /// Another process is at work on it.
    Elsewhere,
}

/// A stage whose directory is ready for its work.
struct Begun {
    _lock: Option<StageLock>,
    identity: Identity,
    resumes: bool,
}

impl<'a> Run<'a> {
    /// `output` is the run's directory. Without `glue`, GLUE's files, stages that read them are skipped.
    pub fn new(recipe: &'a Recipe, output: &'a Path, glue: Option<&'a Path>, watch: &'a dyn Watch) -> Self {
        Run { recipe, output, glue, command: &[], watch, steps: Mutex::default() }
    }

    /// Records the command that repeats this run, word by word.
    pub fn command(self, command: &'a [String]) -> Self {
        Run { command, ..self }
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
            Input::Stage(name) => Ok(self.stage(name)?.output_in(&self.directory(name))),
            Input::Step { stage, step } => {
                let (directory, own) = (self.directory(stage), self.stage(stage)?);
                let settings = self.settled(own)?.settings()?;
                match settings.get("steps").and_then(Value::as_u64) {
                    Some(last) if last == *step => Ok(own.output_in(&directory)),
                    _ => Ok(kept_model(&directory, *step)),
                }
            }
            _ => Ok(input.path(self.watch)?.with_context(|| format!("{input} has no path"))?),
        }
    }

    /// A stage with its number of steps, which may follow from what stages cost.
    fn settled<'s>(&self, stage: &'s Stage) -> Result<Cow<'s, Stage>> {
        if stage.work.budget().is_none() {
            return Ok(Cow::Borrowed(stage));
        }
        let needed = self.with_named([stage.name.as_str()])?;
        let mut results = Vec::new();
        for needed in &needed {
            results.extend(self.result(needed)?);
        }
        let key = (stage.name.clone(), results);
        let known = self.steps.lock().ok().and_then(|steps| steps.get(&key).copied());
        let steps = match known {
            Some(steps) => steps,
            None => {
                let result = |stage: &Stage| self.result(stage);
                let there = There { glue: self.glue, result: &result, watch: self.watch };
                let steps = forecast::steps(&stage.name, needed, &there)?;
                self.steps.lock().ok().map(|mut known| known.insert(key, steps));
                steps
            }
        };
        let work = stage.work.with_steps(steps).unwrap_or_else(|| stage.work.clone());
        Ok(Cow::Owned(Stage { work, ..stage.clone() }))
    }

    /// A tokenizer that was trained tells how large a vocabulary its text yields.
    fn result(&self, stage: &Stage) -> Result<Option<PathBuf>> {
        let gives_tokenizer = stage.kind.gives == Some(Gives::Tokenizer);
        let finished = gives_tokenizer && matches!(self.state(stage)?, State::Finished(_));
        Ok(finished.then(|| stage.output_in(&self.directory(&stage.name))))
    }

    /// These stages and all that they name, directly or not, in order.
    fn with_named<'s>(&self, stages: impl IntoIterator<Item = &'s str>) -> Result<Vec<&'a Stage>> {
        let mut wanted: Vec<&str> = stages.into_iter().collect();
        let mut at = 0;
        while let Some(name) = wanted.get(at) {
            let new: Vec<&str> = forecast::named(self.stage(name)?).collect();
            let new: Vec<&str> = new.into_iter().filter(|name| !wanted.contains(name)).collect();
            wanted.extend(new);
            at += 1;
        }
        Ok(self.recipe.stages.iter().filter(|stage| wanted.contains(&stage.name.as_str())).collect())
    }

    /// What determines a stage's result: the recipe alone, except for inputs that are files.
    fn identity(&self, stage: &Stage) -> Result<Identity> {
        let stage = self.settled(stage)?.into_owned();
        let mut settings = Identity::of_settings(&stage.settings()?, stage.work.effects().neutral);
        if let Some(precision) = stage.compute.precision.filter(|_| stage.work.computes())
            && precision != Precision::default()
        {
            settings.insert("precision", json!(precision));
        }
        if let Some(files) = self.glue.filter(|_| stage.work.glue_tasks().is_some()) {
            settings.insert("files", json!(std::path::absolute(files)?));
        }
        let mut inputs = BTreeMap::new();
        for input in stage.work.inputs() {
            let fingerprint = match input {
                Input::Stage(name) | Input::Step { stage: name, .. } => self.deciding(self.stage(name)?)?,
                _ => match self.locate(input)? {
                    path if *input != Input::Bytes && path.join("config.json").is_file() => {
                        Checkpoint::open(&path)?.blake3()?
                    }
                    path => load_tokenizer(&path)?.fingerprint().to_owned(),
                },
            };
            inputs.insert(input.to_string(), fingerprint);
        }
        Ok(journal::identity(settings, inputs))
    }

    /// The fingerprint of what decides a stage's result.
    fn deciding(&self, stage: &Stage) -> Result<String> {
        Ok(journal::deciding(&stage.work.effects(), &self.identity(stage)?).fingerprint())
    }

    /// How a stage has changed since it had an earlier identity.
    fn changes(&self, stage: &Stage, earlier: &Identity) -> Result<Changes> {
        let mut changes = Changes::new(&stage.work.effects(), &self.identity(stage)?, earlier);
        let mut others = Vec::new();
        for (name, was) in std::mem::take(&mut changes.inputs) {
            if !self.is_as_recorded(&name, &was)? {
                others.push((name, was));
            }
        }
        changes.inputs = others;
        Ok(changes)
    }

    /// Whether an input that had this fingerprint is the finished stage of that name, and this has not
    /// changed. Earlier versions took the fingerprint of everything that was recorded.
    fn is_as_recorded(&self, name: &str, fingerprint: &str) -> Result<bool> {
        let (name, _) = Input::parts(name);
        let Some(stage) = self.recipe.stages.iter().find(|stage| stage.name == name) else {
            return Ok(false);
        };
        let Some(record) = Record::read(&self.directory(name))? else { return Ok(false) };
        Ok(record.identity.fingerprint() == fingerprint
            && self.changes(stage, &record.identity)?.outdating().is_empty())
    }

    /// How far a stage has got, judging by its directory.
    pub fn state(&self, stage: &Stage) -> Result<State> {
        let directory = self.directory(&stage.name);
        let needs_files = stage.work.glue_tasks().is_some() && self.glue.is_none();
        let unless_changed = |state: fn(Changes) -> State, earlier: &Identity| {
            let changes = self.changes(stage, earlier)?;
            let outdating = changes.outdating();
            Ok(if outdating.is_empty() { state(changes) } else { State::OutOfDate(outdating) })
        };
        match Record::read(&directory)? {
            Some(_) if needs_files => Ok(State::Finished(Vec::new())),
            Some(record) => unless_changed(Changes::state, &record.identity),
            None if needs_files => Ok(State::WithoutFiles),
            None => match journal::begun(&directory)?.filter(|_| has_results(stage, &directory)) {
                None => Ok(State::New),
                Some(begun) => unless_changed(|_| State::Begun, &begun),
            },
        }
    }

    /// Forecasts stages listed after their inputs, or reports everything that will be refused.
    pub fn forecasts(&self, stages: &[&Stage]) -> Result<Vec<Forecast>> {
        let result = |stage: &Stage| self.result(stage);
        let all = self.with_named(stages.iter().map(|stage| stage.name.as_str()))?;
        let there = There { glue: self.glue, result: &result, watch: self.watch };
        let forecasts = all.iter().zip(forecasts(all.iter().copied(), &there)?);
        let is_wanted = |stage: &Stage| stages.iter().any(|wanted| wanted.name == stage.name);
        Ok(forecasts.filter(|(stage, _)| is_wanted(stage)).map(|(_, forecast)| forecast).collect())
    }

    /// Runs the stages that have not finished; `stages` lists each after its inputs.
    ///
    /// With several jobs, stages that do not need each other run side by side and share the threads of the
    /// caller's rayon pool. The results are the same, except on a backend that computes something else on
    /// another number of threads. If a stage fails, those that run finish and no other begins.
    pub fn execute(&self, stages: &[&Stage], how: &How<'_>) -> Result<()> {
        let stages_and_reports = self.recipe.stages.iter().map(|stage| stage.name.as_str());
        let names: Vec<&str> = stages_and_reports.chain([RunFile::NAME, REPORT, PAGE]).collect();
        let control = how.compute.control(self.watch);
        ensure!(
            how.compute.group().is_none() || how.jobs == NonZeroUsize::MIN,
            "processes that compute together run one stage at a time; leave out --jobs"
        );
        let left_out = |stage: &Stage| match () {
            () if stage.work.glue_tasks().is_some() && self.glue.is_none() => Some(LeftOut::WithoutGlue),
            () if !stages.iter().any(|selected| selected.name == stage.name) => Some(LeftOut::NotSelected),
            () => None,
        };
        control.first(|| {
            claim(self.output, &names)?;
            RunFile::new(self.recipe, self.command, &left_out).write(self.output)
        })?;
        let computation = match how.jobs {
            NonZeroUsize::MIN => Vec::new(),
            _ => self.forecasts(stages)?.iter().map(|forecast| forecast.flops.unwrap_or(0.0)).collect(),
        };
        let run = |stage: &Stage, threads| self.run(stage, threads, how);
        jobs::run(Schedule::new(stages, &computation), how, self.watch, &run)
    }

    /// Runs a stage if it has not finished; all of its inputs have.
    fn run(&self, stage: &Stage, threads: usize, how: &How<'_>) -> Result<Turn> {
        let (name, directory) = (&stage.name, self.directory(&stage.name));
        let failed = |error: anyhow::Error| error.context(format!("stage {name:?} failed"));
        let control = how.compute.control(self.watch);
        let mut begun = None;
        let beginning = control.first(|| {
            let (beginning, own) = match self.begin(stage, how)? {
                Beginning::Begun(own) => (Beginning::Begun(()), Some(own)),
                Beginning::Finished => (Beginning::Finished, None),
                Beginning::Elsewhere => (Beginning::Elsewhere, None),
            };
            begun = own;
            Ok::<_, anyhow::Error>(beginning)
        })?;
        match beginning {
            Beginning::Begun(()) => {}
            Beginning::Finished => return Ok(Turn::Finished),
            Beginning::Elsewhere => return Ok(Turn::Elsewhere),
        }
        let compute = &how.compute.chosen(&stage.compute).map_err(|error| failed(error.into()))?;
        let start = |begun: &Begun| Clock::start(&directory, begun.resumes, Machine::this(compute, threads));
        let clock = begun.as_ref().map(start).transpose()?;
        let work = || self.work(stage, &directory, threads, compute);
        // What one process computes by itself, the others wait for.
        let result = if stage.kind.together { work() } else { control.first(work) };
        let error = result.as_ref().err().filter(|error| !error.is::<Interrupted>());
        let seconds = clock.map(|clock| clock.stop(error.map(|error| format!("{error:#}")))).transpose()?;
        let result = result.map_err(|error| match error.is::<Interrupted>() {
            true => error,
            false => failed(error),
        })?;
        control.first(|| {
            let (Some(Begun { identity, .. }), Some(seconds)) = (&begun, seconds) else { return Ok(()) };
            Record::new(identity.clone(), result, seconds).write(&directory)?;
            self.watch.note(name, &Note::Finished { seconds });
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(Turn::Finished)
    }

    /// Makes a stage's directory ready, unless it has finished; all of its inputs have.
    fn begin(&self, stage: &Stage, how: &How<'_>) -> Result<Beginning<Begun>> {
        let (name, directory) = (&stage.name, self.directory(&stage.name));
        // Reading needs no lock; a writer looks again once it holds the lock.
        let lock = match self.state(stage)? {
            State::Finished(_) | State::WithoutFiles => None,
            _ => match StageLock::take_if_free(self.output, name)? {
                Some(lock) => Some(lock),
                None => return Ok(Beginning::Elsewhere),
            },
        };
        let mut resumes = false;
        match self.state(stage)? {
            State::Finished(measured) => {
                self.watch.note(name, &Note::FinishedBefore { measured: &measured });
                return Ok(Beginning::Finished);
            }
            State::WithoutFiles => {
                self.watch.note(name, &Note::WithoutGlue);
                return Ok(Beginning::Finished);
            }
            State::OutOfDate(changes) if !how.redo => {
                let changes = changes.join("; ");
                let problem = format!("what there is of stage {name:?} is out of date: {changes}");
                return Err(mendable(problem, Remedy::Redo));
            }
            State::OutOfDate(_) => {
                if remove_written(&directory)? {
                    self.watch.note(name, &Note::Kept { directory: &directory });
                }
            }
            State::Begun => resumes = true,
            State::New => {}
        }
        let identity = self.identity(stage)?;
        self.watch.note(name, &Note::Begins(stage.kind.name));
        let names = [stage.kind.output, journal::FILE, journal::BEGUN, journal::TIME];
        claim(&directory, &names.iter().chain(stage.work.beside()).copied().collect::<Vec<_>>())?;
        journal::begin(&identity, &directory)?;
        Ok(Beginning::Begun(Begun { _lock: lock, identity, resumes }))
    }

    fn work(&self, stage: &Stage, directory: &Path, threads: usize, compute: &Compute) -> Result<Value> {
        let stage = &*self.settled(stage)?;
        let locate = |input: &Input| self.locate(input);
        let (name, glue, watch) = (&stage.name, self.glue, self.watch);
        let output = &stage.output_in(directory);
        let work =
            || stage.work.run(&Context { name, directory, output, glue, compute, watch, locate: &locate });
        // In a pool of its own, since a thread outside hands each of its operations over to another.
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        pool.context("cannot start the threads")?.install(work)
    }

    /// The stages named in `only` and everything they depend on, in order; all stages if `only` is empty.
    pub fn selected(&self, only: &[String]) -> Result<Vec<&'a Stage>> {
        let mut wanted: Vec<&str> = Vec::new();
        for name in only {
            let is_meant = |stage: &&Stage| {
                // A name in the recipe means that stage with all sets of seeds.
                stage.name == *name || stage.seed_set.as_ref().is_some_and(|set| set.stage == *name)
            };
            let meant = self.recipe.stages.iter().filter(is_meant).map(|stage| stage.name.as_str());
            let before = wanted.len();
            wanted.extend(meant);
            let known = self.recipe.stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>();
            ensure!(
                wanted.len() > before,
                "there is no stage {name:?}; the stages are: {}",
                known.join(", ")
            );
        }
        let mut at = 0;
        while let Some(name) = wanted.get(at) {
            let inputs = self.stage(name)?.work.inputs();
            let new: Vec<&str> = inputs.into_iter().filter_map(Input::stage).collect();
            wanted.extend(new);
            at += 1;
        }
        let is_wanted = |stage: &&Stage| only.is_empty() || wanted.contains(&stage.name.as_str());
        Ok(self.recipe.stages.iter().filter(is_wanted).collect())
    }
}

impl Changes {
    /// How far a finished stage has got whose result is not out of date.
    fn state(self) -> State {
        if self.extends { State::Begun } else { State::Finished(self.measured) }
    }
}

/// Whether an unfinished stage left anything that its settings affect: a result, or something to resume from.
fn has_results(stage: &Stage, directory: &Path) -> bool {
    let begun = fs::read_dir(directory.join(stage.work.checkpoints()));
    let counts = |entry: io::Result<DirEntry>| entry.is_ok_and(|entry| entry.file_name() != RECORD);
    stage.output_in(directory).exists() || begun.is_ok_and(|mut entries| entries.any(counts))
}
