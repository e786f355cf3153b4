use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice::from_ref;

use anyhow::{Result, ensure};
use clap::Args;
use pipeline::Stoppable;
use t5_model::parameter_table;

use self::model::Workload;
use self::product::SquareProduct;
use self::protocol::{STEP, Summary, Times, WARM_UP};
use self::report::Report;
use super::contestant::Contestant;
use super::field::{Field, require};
use super::report::conclude;
use super::turns::Measurement;
use crate::cli::compute::start_threads;
use crate::terminal::{Terminal, interrupt};

mod model;
mod product;
mod protocol;
mod report;
pub mod worker;

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask bench train\n",
    "  cargo xtask bench train --model t5-small --only 'burn cpu' --only transformers --rounds 3 --steps 2\n",
    "  cargo xtask bench train --model t5-base --batch 128 --device cuda:0 --reference 'transformers cuda:0 bf16 sdpa'",
);

/// Variants of transformers on a CPU: its model's own attention, or PyTorch's.
const ON_CPU: [&str; 2] = ["", "sdpa"];
/// On a GPU, both also run under torch.compile.
const ON_CUDA: [&str; 4] = ["", "compiled", "sdpa", "sdpa compiled"];

/// Time training steps of every backend and of Hugging Face's T5 under PyTorch
///
/// Each contestant runs in its own process: every compiled-in backend on each of its devices in each
/// precision, and transformers if a Python with it is found, with its own attention ("eager") and with
/// PyTorch's ("sdpa"), on CUDA also under torch.compile ("compiled"). On CPUs, the contestants take turns in
/// every round while the others sleep, so that a busy machine affects all alike. On GPUs, each contestant
/// completes all its rounds before the next one starts, because the memory may not suffice for two. A step
/// consists of forward pass, cross-entropy, backward pass and AdamW (PyTorch's fused one in transformers) on
/// the same sizes, without dropout or clipping.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    workload: Workload,
    /// Run only this contestant, named as in the table (`burn cpu`, `tch cuda:0 bf16`, `transformers`,
    /// `transformers cuda:0 bf16 sdpa compiled`); can be repeated. A backend that is not compiled in is built
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Run only the contestants on this device, such as `cuda:0`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// The contestant to compare times with, named as in the table [default: the first of transformers,
    /// otherwise the first]
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// Turns per contestant
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Steps per turn
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
        require(&self.only)?;
        start_threads(self.threads)?;
        let mut all = Contestant::all(&ON_CPU, &ON_CUDA);
        if let Some(device) = &self.device {
            all = Contestant::on(device, all)?;
        }
        let Field { contestants, python, left_out } = Field::new(all, &self.only, self.python.as_deref())?;
        if let Some(reference) = &self.reference {
            Contestant::chosen(contestants.clone(), from_ref(reference))?;
        }
        interrupt::listen()?;
        let _graceful = Stoppable::new(&Terminal); // an interrupted bench still ends its workers
        let (on_cpu, on_gpus): (Vec<_>, Vec<_>) = contestants.into_iter().partition(Contestant::on_cpu);
        let size = if self.workload.is_tiny() { 128 } else { 2048 };
        let product = (!on_cpu.is_empty()).then(|| SquareProduct::new(size));
        let mut training = Training { arguments: &self, python: python.as_deref(), product };
        let parameters = parameter_table(&self.workload.config())?.parameter_count();
        let mut measured = training.measure(on_cpu, parameters, self.rounds)?;
        let product = training.product.take();
        for contestant in on_gpus {
            measured.extend(training.measure(vec![contestant], parameters, self.rounds)?);
        }
        let report = Report::new(&self.workload, self.reference.as_deref(), product.as_ref(), &measured);
        let text = (!self.json).then(|| report.text() + &left_out);
        conclude(&report, text, &report.contestants)
    }
}

/// The measurement.
struct Training<'a> {
    arguments: &'a Arguments,
    python: Option<&'a Path>,
    /// Timed in every round as well.
    product: Option<SquareProduct>,
}

impl Measurement for Training<'_> {
    type Answer = Times;
    /// Milliseconds of each step.
    type Turn = Vec<f64>;
    type Summary = Summary;
    const REQUEST: &'static str = STEP;

    fn command(&self, contestant: &Contestant) -> Result<Command> {
        let workload = &self.arguments.workload;
        let mut command = contestant.command("train-worker", "bench_transformers.py", self.python)?;
        if contestant.needs_python() {
            command.args(sizes(workload)).args(["--optimizer", "fused"]);
        } else {
            command.args(workload.arguments());
        }
        Ok(command)
    }

    fn round(&mut self) -> Vec<usize> {
        self.product.iter_mut().for_each(SquareProduct::run);
        vec![self.arguments.steps as usize]
    }

    fn turn(&self, steps: usize, Times { ms }: Times) -> Result<Vec<f64>> {
        let sound = ms.len() == steps && ms.iter().all(|ms| ms.is_finite() && *ms > 0.0);
        ensure!(sound, "its times of {steps} steps are {ms:?}");
        Ok(ms)
    }
}

/// The model and its batch as options of `bench_transformers.py`.
fn sizes(workload: &Workload) -> Vec<String> {
    let (config, [batch, input, target]) = (workload.config(), workload.sizes());
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
