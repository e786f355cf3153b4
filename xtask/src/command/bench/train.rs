use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};
use clap::Args;
use t5_model::parameter_table;

use self::model::Model;
use self::product::SquareProduct;
use self::protocol::{Request, Times, WARM_UP};
use self::report::{Measured, Report};
use super::contestant::Contestant;
use super::entrant::{Entrant, NO_TRANSFORMERS, build_missing, entrants};
use crate::compute::start_threads;
use crate::interrupt;
use crate::output::{print, print_json};

mod model;
mod product;
mod protocol;
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
        build_missing(&self.only)?;
        start_threads(self.threads)?;
        let all = Contestant::all(&[""], &["", "compiled"]);
        let (contestants, python) = entrants(all, &self.only, self.python.as_deref())?;
        interrupt::listen()?;
        let _graceful = interrupt::let_finish(); // a bench that is interrupted still ends its workers
        let mut product = SquareProduct::new(if matches!(self.model, Model::Tiny) { 128 } else { 2048 });
        let parameters = parameter_table(&self.model.config())?.parameter_count();
        let mut runs = Vec::new();
        for contestant in contestants {
            eprintln!("start {contestant}");
            let command = command(&contestant, self.model, python.as_deref())?;
            runs.push(Run { entrant: Entrant::start(contestant, command, parameters)?, rounds: Vec::new() });
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
}

/// What starts a contestant's worker.
fn command(contestant: &Contestant, model: Model, python: Option<&Path>) -> Result<Command> {
    let mut command = contestant.command("train-worker", "bench_transformers.py", python)?;
    if contestant.needs_python() {
        command.args(sizes(model)).args(["--optimizer", "fused"]);
    } else {
        command.args(["--model", &model.name()]);
    }
    Ok(command)
}

/// The model and its batch as options of `bench_transformers.py`.
fn sizes(model: Model) -> Vec<String> {
    let (config, [batch, input, target]) = (model.config(), model.sizes());
    [
        ("vocabulary", config.vocab_size),
        ("d-model", config.d_model),
        ("d-kv", config.d_kv),
        ("heads", config.num_heads),
        ("d-ff", config.d_ff),
        ("layers", config.num_layers),
        ("decoder-layers", config.num_decoder_layers()),
        ("batch", batch),
        ("input-length", input),
        ("target-length", target),
        ("warm-up", WARM_UP as usize),
    ]
    .into_iter()
    .flat_map(|(name, value)| [format!("--{name}"), value.to_string()])
    .collect()
}

/// A contestant's way through the measurement.
struct Run {
    entrant: Entrant,
    /// Milliseconds of the steps of each round.
    rounds: Vec<Vec<f64>>,
}

impl Run {
    /// Lets the worker take some steps.
    fn turn(&mut self, steps: u32) -> Result<()> {
        let times = self.entrant.ask(Request::Step(steps), |Times { ms }| {
            let sound = ms.len() == steps as usize && ms.iter().all(|ms| ms.is_finite() && *ms > 0.0);
            ensure!(sound, "its times of {steps} steps are {ms:?}");
            Ok(())
        })?;
        self.rounds.extend(times.map(|Times { ms }| ms));
        Ok(())
    }

    fn finish(self) -> Result<Measured> {
        let contestant = self.entrant.contestant.clone();
        Ok(Measured { contestant, rounds: self.rounds, summary: self.entrant.finish()? })
    }
}
