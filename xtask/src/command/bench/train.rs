use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use clap::Args;
use t5_model::parameter_table;

use self::contestant::Contestant;
use self::model::Model;
use self::process::Worker;
use self::product::SquareProduct;
use self::protocol::{Ready, Request, Summary, Times};
use self::report::{Measured, Report};
use crate::build;
use crate::compute::start_threads;
use crate::interrupt::{self, Interrupted};
use crate::output::{print, print_json};

mod contestant;
mod model;
mod process;
mod product;
mod protocol;
mod python;
mod report;
pub mod worker;

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask bench train\n",
    "  cargo xtask bench train --model t5-small --only 'burn cpu' --only transformers --rounds 3 --steps 2",
);

/// Time training steps of every backend and of Hugging Face's T5 under PyTorch, in turns
///
/// Each contestant is a process of its own: every compiled-in backend on each of its devices in each of its precisions, and
/// transformers if there is a Python with it. In every round each takes some steps in turn while the others sleep, so that
/// a busy machine disturbs all alike. A step is forward, cross-entropy, backward and AdamW (PyTorch's fused one in
/// transformers) on the same sizes, without dropout and clipping.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// What is trained
    #[arg(long, value_enum, default_value = "probe")]
    model: Model,
    /// Only this one, by its name in the table (`burn cpu`, `tch cpu bf16`, `transformers`); can be repeated. A backend that
    /// is not compiled in is built
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How often each contestant has its turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Steps of a turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// A Python with torch and transformers [default: target/python/bin/python or python3, if they have them]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Print every round as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        // What is asked for by name is built, if need be.
        let frameworks = self.only.iter().filter_map(|name| name.split_whitespace().next());
        for missing in frameworks.filter(|name| build::is_missing(name)) {
            build::backend(missing)?;
        }
        start_threads(self.threads)?;
        let (contestants, python) = self.contestants()?;
        interrupt::listen()?;
        let _graceful = interrupt::let_finish(); // a bench that is interrupted still ends its workers
        let mut product = SquareProduct::new(if matches!(self.model, Model::Tiny) { 128 } else { 2048 });
        let parameters = parameter_table(&self.model.config())?.parameter_count();
        let mut runs = Vec::new();
        for contestant in contestants {
            eprintln!("start {contestant}");
            let command = contestant.command(self.model, rayon::current_num_threads(), python.as_deref())?;
            runs.push(Run::start(contestant, command, parameters)?);
        }
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}", self.rounds);
            product.run();
            runs.iter_mut().try_for_each(|run| run.turn(self.steps))?;
        }
        let measured = runs.into_iter().map(Run::finish).collect::<Result<Vec<_>>>()?;
        let report = Report::new(self.model, &product, measured);
        if self.json {
            print_json(&report)?;
        } else {
            let missing = python.is_none() && self.only.is_empty();
            print(&format!("{}{}", report.text(), if missing { NO_TRANSFORMERS } else { "" }))?;
        }
        match report.failures() {
            0 => Ok(()),
            failed => bail!("{failed} of the contestants failed"),
        }
    }

    /// Who takes part, and with which Python.
    fn contestants(&self) -> Result<(Vec<Contestant>, Option<PathBuf>)> {
        let mut contestants = Contestant::chosen(&self.only)?;
        ensure!(!contestants.is_empty(), "no backend is compiled in");
        if !contestants.iter().any(Contestant::needs_python) {
            return Ok((contestants, None));
        }
        let python = python::find(self.python.as_deref())?;
        if python.is_none() {
            ensure!(self.only.is_empty(), "{}", NO_TRANSFORMERS.trim());
            contestants.retain(|contestant| !contestant.needs_python());
        }
        Ok((contestants, python))
    }
}

const NO_TRANSFORMERS: &str = "\nWithout transformers: no Python with torch and transformers was found. \
     `pip install torch transformers`, or name one with --python\n";

/// A contestant's way through the measurement.
struct Run {
    contestant: Contestant,
    /// Or why there is none any more.
    worker: Result<Worker, String>,
    /// Milliseconds of the steps of each round.
    rounds: Vec<Vec<f64>>,
}

impl Run {
    /// Starts the worker and waits until it is ready.
    fn start(contestant: Contestant, command: Command, parameters: u64) -> Result<Run> {
        let worker = Worker::start(command).and_then(|mut worker| {
            let ready: Ready = worker.hear()?;
            ensure!(ready.parameters == parameters, "it has {} weights, not {parameters}", ready.parameters);
            Ok(worker)
        });
        Ok(Run { contestant, worker: unless_interrupted(worker)?, rounds: Vec::new() })
    }

    /// Lets the worker take some steps, if it has not failed yet.
    fn turn(&mut self, steps: u32) -> Result<()> {
        let Ok(worker) = &mut self.worker else { return Ok(()) };
        let times = worker.ask(Request::Step(steps)).and_then(|Times { ms }| {
            let sound = ms.len() == steps as usize && ms.iter().all(|ms| ms.is_finite() && *ms > 0.0);
            ensure!(sound, "its times of {steps} steps are {ms:?}");
            Ok(ms)
        });
        match unless_interrupted(times)? {
            Ok(ms) => self.rounds.push(ms),
            Err(error) => self.worker = Err(error),
        }
        Ok(())
    }

    fn finish(self) -> Result<Measured> {
        let summary = match self.worker {
            Ok(mut worker) => unless_interrupted(worker.ask::<Summary>(Request::Quit))?,
            Err(error) => Err(error),
        };
        Ok(Measured { contestant: self.contestant, rounds: self.rounds, summary })
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
