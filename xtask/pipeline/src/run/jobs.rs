//! Runs stages side by side.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::channel;
use std::thread;

use anyhow::{Context, Result};

use super::How;
use super::schedule::Schedule;
use crate::problems::Problems;
use crate::stage::Stage;
use crate::{Interrupted, Note, Watch};

/// Runs a stage on so many threads.
pub type RunStage<'a> = &'a (dyn Fn(&Stage, usize) -> Result<()> + Sync);

/// Runs scheduled stages, as many at a time as there are jobs, and waits for all of them. None begins after one
/// has failed or the user wants to stop.
pub fn run(schedule: Schedule<'_>, how: &How<'_>, watch: &dyn Watch, run: RunStage<'_>) -> Result<()> {
    let (done, ends) = channel();
    let threads = rayon::current_num_threads();
    let mut jobs =
        Jobs { schedule, how, watch, threads, running: Vec::new(), errors: Vec::new(), panic: None };
    thread::scope(|scope| {
        loop {
            while let Some((stage, threads)) = jobs.next() {
                let done = done.clone();
                let work = move || {
                    let end = catch_unwind(AssertUnwindSafe(|| run(stage, threads)));
                    // It is waited for until it has said this.
                    let _ = done.send((stage.name.as_str(), end));
                };
                let thread = thread::Builder::new().name(stage.name.clone()).spawn_scoped(scope, work);
                if let Err(error) = thread {
                    jobs.ends(&stage.name, Ok(Err(error).context("cannot start a thread")));
                }
            }
            if jobs.running.is_empty() {
                break;
            }
            let Ok((name, end)) = ends.recv() else { break };
            jobs.ends(name, end);
        }
    });
    jobs.result()
}

/// How a stage's work ended: `Err` is a panic.
type End = thread::Result<Result<()>>;

struct Jobs<'a> {
    schedule: Schedule<'a>,
    how: &'a How<'a>,
    watch: &'a dyn Watch,
    /// That stages share.
    threads: usize,
    running: Vec<Running<'a>>,
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
        if free_jobs == 0 || !self.errors.is_empty() || self.panic.is_some() {
            return None;
        }
        let is_free = |stage: &&Stage| {
            let gpu = self.gpu(stage);
            gpu.is_none() || self.running.iter().all(|running| running.gpu != gpu)
        };
        let ready: Vec<&Stage> = self.schedule.ready().into_iter().filter(is_free).collect();
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

    fn ends(&mut self, name: &str, end: End) {
        self.running.retain(|running| running.name != name);
        match end {
            Ok(Ok(())) => self.schedule.finished(name),
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
