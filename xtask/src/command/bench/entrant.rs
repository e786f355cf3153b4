//! A contestant's way through a measurement.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde::de::DeserializeOwned;

use super::contestant::Contestant;
use super::process::Worker;
use super::protocol::{QUIT, Ready};
use super::python;
use crate::build;
use crate::interrupt::Interrupted;

pub const NO_TRANSFORMERS: &str = "\nWithout transformers: no Python with torch and transformers was found. \
     `pip install torch transformers`, or name one with --python\n";

/// Builds what these contestants need and is not compiled in.
pub fn build_missing(names: &[String]) -> Result<()> {
    for name in names {
        let mut words = name.split_whitespace();
        let (backend, device) = (words.next().unwrap_or_default(), words.next());
        if build::is_missing(backend, device) {
            build::backend(backend, device)?;
        }
    }
    Ok(())
}

/// Who of all takes part, where `only` names some, and with which Python.
pub fn entrants(
    all: Vec<Contestant>,
    only: &[String],
    python: Option<&Path>,
) -> Result<(Vec<Contestant>, Option<PathBuf>)> {
    let mut contestants = Contestant::chosen(all, only)?;
    ensure!(!contestants.is_empty(), "no backend is compiled in");
    if !contestants.iter().any(Contestant::needs_python) {
        return Ok((contestants, None));
    }
    let python = python::find(python)?;
    if python.is_none() {
        ensure!(only.is_empty(), "{}", NO_TRANSFORMERS.trim());
        contestants.retain(|contestant| !contestant.needs_python());
    }
    Ok((contestants, python))
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
