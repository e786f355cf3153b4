//! A contestant's way through a measurement.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use pipeline::{Interrupted, NotBuilt};
use serde::de::DeserializeOwned;

use super::contestant::Contestant;
use super::process::Worker;
use super::protocol::{QUIT, Ready};
use super::python;
use crate::dev::feature;

const NO_TRANSFORMERS: &str = "Without transformers: no Python with torch and transformers was found. \
     `pip install torch transformers`, or name one with --python";
const GET_CTRANSLATE2: &str = "`pip install ctranslate2` there, or name another Python with --python";

/// Fails if what these contestants need is not compiled in.
pub fn require(names: &[String]) -> Result<(), NotBuilt> {
    let needed = names.iter().filter_map(|name| {
        let mut words = name.split_whitespace();
        feature::missing_for(words.next()?, words.next())
    });
    let features: BTreeSet<&str> = needed.map(|feature| feature.name).collect();
    match features.is_empty() {
        true => Ok(()),
        false => Err(NotBuilt { features: features.into_iter().collect() }),
    }
}

/// Who takes part.
pub struct Field {
    pub contestants: Vec<Contestant>,
    pub python: Option<PathBuf>,
    /// A line about who does not, for want of what; empty if all do.
    pub left_out: String,
}

impl Field {
    /// Those of all that `only` names, or else all for whom there is what they need.
    pub fn new(all: Vec<Contestant>, only: &[String], python: Option<&Path>) -> Result<Field> {
        let contestants = Contestant::chosen(all, only)?;
        ensure!(!contestants.is_empty(), "no backend is compiled in");
        let mut field = Field { contestants, python: None, left_out: String::new() };
        if field.contestants.iter().any(Contestant::needs_python) {
            field.python = python::find(python)?;
            if field.python.is_none() {
                field.leave_out(Contestant::needs_python, NO_TRANSFORMERS);
            }
        }
        if let Some(python) = &field.python
            && field.contestants.iter().any(Contestant::needs_ctranslate2)
            && !python::has(python, "ctranslate2")
        {
            let reason = format!("Without ctranslate2: {} lacks it. {GET_CTRANSLATE2}", python.display());
            field.leave_out(Contestant::needs_ctranslate2, &reason);
        }
        ensure!(only.is_empty() || field.left_out.is_empty(), "{}", field.left_out.trim());
        Ok(field)
    }

    fn leave_out(&mut self, whom: fn(&Contestant) -> bool, reason: &str) {
        self.contestants.retain(|contestant| !whom(contestant));
        self.left_out = format!("\n{reason}\n");
    }
}

/// A contestant with its worker.
pub struct Entrant {
    pub contestant: Contestant,
    /// Or why there is none any more.
    worker: Result<Worker, String>,
}

impl Entrant {
    /// Starts the worker and waits until it is ready.
    pub fn start(contestant: Contestant, command: Command, parameters: u64) -> Result<Self> {
        let worker = Worker::start(command).and_then(|mut worker| {
            let ready: Ready = worker.hear()?;
            ensure!(ready.parameters == parameters, "it has {} weights, not {parameters}", ready.parameters);
            Ok(worker)
        });
        Ok(Entrant { contestant, worker: unless_interrupted(worker)? })
    }

    /// What the worker answers, if it has not failed yet.
    pub fn ask<Answer: DeserializeOwned>(
        &mut self,
        request: impl Display,
        check: impl FnOnce(&Answer) -> Result<()>,
    ) -> Result<Option<Answer>> {
        let Ok(worker) = &mut self.worker else { return Ok(None) };
        let answer = worker.ask(request).and_then(|answer| check(&answer).map(|()| answer));
        Ok(match unless_interrupted(answer)? {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.worker = Err(error);
                None
            }
        })
    }

    /// The worker's process, if it has not failed yet.
    pub fn process(&self) -> Option<u32> {
        self.worker.as_ref().ok().map(Worker::id)
    }

    /// The worker's last words, or why it did not come to its end.
    pub fn finish<Summary: DeserializeOwned>(self) -> Result<Result<Summary, String>> {
        match self.worker {
            Ok(mut worker) => unless_interrupted(worker.ask(QUIT)),
            Err(error) => Ok(Err(error)),
        }
    }
}

/// The last line of what went wrong, which is one contestant's matter; Ctrl-C is everyone's.
fn unless_interrupted<T>(result: Result<T>) -> Result<Result<T, String>> {
    match result {
        Err(error) if error.is::<Interrupted>() => Err(error),
        Err(error) => Ok(Err(format!("{error:#}").lines().last().unwrap_or_default().trim().to_owned())),
        Ok(value) => Ok(Ok(value)),
    }
}
