//! Runs stages side by side.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::How;
use super::schedule::Schedule;
use crate::problems::Problems;
use crate::stage::Stage;
use crate::{Interrupted, Note, Watch};

/// Runs a stage on so many threads.
pub type RunStage<'a> = &'a (dyn Fn(&Stage, usize) -> Result<Turn> + Sync);

/// What came of a stage's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has finished.
    Finished,
    /// Another process is at work on it.
    Elsewhere,
}

/// How often to look again whether a stage is still being worked on elsewhere.
const LOOK: Duration = Duration::from_secs(1);

/// Runs scheduled stages, as many at a time as there are jobs, and waits for all of them. None begins after one
/// has failed or the user wants to stop. Those on which other processes are at work are waited for last, and
/// done here if these processes leave them unfinished.
pub fn run(schedule: Schedule<'_>, how: &How<'_>, watch: &dyn Watch, run: RunStage<'_>) -> Result<()> {
    let (done, ends) = channel();
    let threads = rayon::current_num_threads();
    let mut jobs = Jobs {
        schedule,
        how,
        watch,
        threads,
        running: Vec::new(),
        elsewhere: BTreeMap::new(),
        errors: Vec::new(),
        panic: None,
    };
    thread::scope(|scope| {
        loop {
            while let Some((stage, threads)) = jobs.next() {
                let done = done.clone();
                let work = move || {
                    let end = catch_unwind(AssertUnwindSafe(|| run(stage, threads)));
                    // It is waited for until it has said this.
                    let _ = done.send((stage, end));
                };
                let thread = thread::Builder::new().name(stage.name.clone()).spawn_scoped(scope, work);
                if let Err(error) = thread {
                    jobs.ends(stage, Ok(Err(error).context("cannot start a thread")));
                }
            }
            if jobs.running.is_empty() && (jobs.elsewhere.is_empty() || jobs.is_over()) {
                break;
            }
            // Not for ever, since others do not tell when they have finished.
            match ends.recv_timeout(LOOK) {
                Ok((stage, end)) => jobs.ends(stage, end),
                Err(RecvTimeoutError::Timeout) => jobs.stop_waiting(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    jobs.result()
}

/// How a stage's work ended: `Err` is a panic.
type End = thread::Result<Result<Turn>>;

struct Jobs<'a> {
    schedule: Schedule<'a>,
    how: &'a How<'a>,
    watch: &'a dyn Watch,
    /// That stages share.
    threads: usize,
    running: Vec<Running<'a>>,
    /// Stages on which other processes are at work, and when they were last looked at.
    elsewhere: BTreeMap<&'a str, Instant>,
    errors: Vec<anyhow::Error>,
    panic: Option<Box<dyn Any + Send>>,
}

struct Running<'a> {
    name: &'a str,
    threads: usize,
    /// The GPU on which it computes.
    gpu: Option<String>,
}

impl<'a> Jobs<'a> {
    /// The stage that begins now, if any does, and the number of its threads.
    fn next(&mut self) -> Option<(&'a Stage, usize)> {
        let free_jobs = self.how.jobs.get().saturating_sub(self.running.len());
        if free_jobs == 0 || self.is_over() {
            return None;
        }
        let is_free = |stage: &&Stage| {
            let gpu = self.gpu(stage);
            gpu.is_none() || self.running.iter().all(|running| running.gpu != gpu)
        };
        let looked_at = |stage: &&Stage| {
            self.elsewhere.get(stage.name.as_str()).is_none_or(|since| since.elapsed() >= LOOK)
        };
        let ready = self.schedule.ready().into_iter().filter(is_free).filter(looked_at);
        let ready: Vec<&Stage> = ready.collect();
        let stage = *ready.first()?;
        if self.watch.wants_stop() {
            self.errors.push(Interrupted { left: None, resumes: true }.into());
            return None;
        }
        let taken: usize = self.running.iter().map(|running| running.threads).sum();
        // Those that begin together share what is free. A stage keeps its number of threads to the end.
        let share = self.threads.saturating_sub(taken) / free_jobs.min(ready.len());
        let threads = stage.compute.threads.map_or(share.max(1), usize::from);
        self.schedule.begins(&stage.name);
        self.running.push(Running { name: &stage.name, threads, gpu: self.gpu(stage) });
        Some((stage, threads))
    }

    /// The GPU on which a stage computes. Stages take turns there: the memory of one may leave none for another.
    fn gpu(&self, stage: &Stage) -> Option<String> {
        let compute =
            stage.work.computes().then(|| self.how.compute.chosen(&stage.compute).ok()).flatten()?;
        (!compute.how().is_on_cpu()).then(|| compute.how().device.clone())
    }

    /// Whether no stage begins any more.
    fn is_over(&self) -> bool {
        !self.errors.is_empty() || self.panic.is_some()
    }

    /// Ends the wait for other processes if the user wants to stop.
    fn stop_waiting(&mut self) {
        if self.running.is_empty() && self.watch.wants_stop() {
            self.errors.push(Interrupted { left: None, resumes: true }.into());
        }
    }

    fn ends(&mut self, stage: &'a Stage, end: End) {
        let name = stage.name.as_str();
        self.running.retain(|running| running.name != name);
        match end {
            Ok(Ok(Turn::Finished)) => {
                self.elsewhere.remove(name);
                self.schedule.finished(name);
            }
            Ok(Ok(Turn::Elsewhere)) => {
                if self.elsewhere.insert(name, Instant::now()).is_none() {
                    self.watch.note(name, &Note::Elsewhere);
                }
                self.schedule.waits(stage);
            }
            Ok(Err(error)) => {
                let others: Vec<&str> = self.running.iter().map(|running| running.name).collect();
                if !others.is_empty() && !error.is::<Interrupted>() {
                    self.watch.note(name, &Note::Failed { others: &others });
                }
                self.errors.push(error);
            }
            Err(panic) => self.panic = Some(panic),
        }
    }

    /// All that failed, or else what was interrupted.
    fn result(self) -> Result<()> {
        if let Some(panic) = self.panic {
            resume_unwind(panic);
        }
        let (interrupted, failed): (Vec<_>, Vec<_>) =
            self.errors.into_iter().map(anyhow::Error::downcast::<Interrupted>).partition(Result::is_ok);
        let mut problems = Problems::default();
        failed.into_iter().filter_map(Result::err).for_each(|error| problems.add(error));
        problems.result()?;
        match interrupted.into_iter().flatten().reduce(both) {
            Some(interrupted) => Err(interrupted.into()),
            None => Ok(()),
        }
    }
}

fn both(one: Interrupted, other: Interrupted) -> Interrupted {
    let left: Vec<String> = one.left.into_iter().chain(other.left).collect();
    let left = (!left.is_empty()).then(|| left.join("; "));
    Interrupted { left, resumes: one.resumes || other.resumes }
}
