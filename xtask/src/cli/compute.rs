//! Selects the backend, device and threads that a command computes with.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use pipeline::Compute;
use rayon::ThreadPoolBuilder;
use t5_model::backend::GroupOptions;
use t5_model::{Backend, Computation, Precision};

use crate::dev::build;
use crate::ranks::{self, Place};

/// The backend of the first build.
pub const DEFAULT_BACKEND: &str = "burn";
/// The device that every backend has.
pub const DEFAULT_DEVICE: &str = "cpu";

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Computing")]
pub struct ComputeArguments {
    /// The tensor framework; `cargo xtask backends` lists them
    #[arg(long, value_name = "NAME", default_value = DEFAULT_BACKEND)]
    pub backend: String,
    #[command(flatten)]
    pub how: Computation,
    /// Threads to compute with [default: all cores, shared by the processes that compute together]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// For commands that several processes can compute together.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Computing")]
pub struct GroupArguments {
    /// How long processes that compute together wait for each other, see `launch`
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    group_timeout: u32,
    /// What processes that compute together add up gradients in: bf16 is half as much to send, and less exact
    #[arg(long, value_name = "PRECISION", value_enum, default_value_t)]
    reduce_precision: Precision,
    /// Each of the processes that compute together keeps a share of the optimiser's state rather than all of it
    #[arg(long)]
    shard_optimizer: bool,
}

impl GroupArguments {
    /// How to compute, together with the other processes if there are any. Waits for them.
    pub fn compute(&self, backend: &'static dyn Backend, how: Computation) -> Result<Compute> {
        let Some(place) = ranks::place() else { return Ok(Compute::new(backend, how)?) };
        let options = GroupOptions {
            timeout: Duration::from_secs(self.group_timeout.into()),
            reduce_in: self.reduce_precision,
            shard_optimizer: self.shard_optimizer,
        };
        let group = ranks::join(place, options)?;
        Ok(Compute::in_group(backend, how, Some(group), place.local_rank)?)
    }

    /// Tells the others if this process has failed.
    pub fn report<T>(compute: &Compute, result: Result<T>) -> Result<T> {
        if let (Err(error), Some(group)) = (&result, compute.group()) {
            group.fail(&format!("{error:#}"));
        }
        result
    }
}

impl ComputeArguments {
    /// Finds the backend and the device, and computes with them on so many threads. Must come before any parallel
    /// work.
    pub fn run<T: Send>(&self, work: impl FnOnce(&Compute) -> Result<T> + Send) -> Result<T> {
        self.run_with(|backend, how| Ok(Compute::new(backend, how)?), work)
    }

    /// The same, together with the other processes if there are any.
    pub fn run_together<T: Send>(
        &self,
        group: &GroupArguments,
        work: impl FnOnce(&Compute) -> Result<T> + Send,
    ) -> Result<T> {
        let work = |compute: &Compute| GroupArguments::report(compute, work(compute));
        self.run_with(|backend, how| group.compute(backend, how), work)
    }

    fn run_with<T: Send>(
        &self,
        open: impl FnOnce(&'static dyn Backend, Computation) -> Result<Compute>,
        work: impl FnOnce(&Compute) -> Result<T> + Send,
    ) -> Result<T> {
        start_threads(self.threads)?;
        let backend = build::backend(&self.backend, Some(&self.how.device))?;
        let compute = open(backend, self.how.clone())?;
        // A thread outside of the pool hands each of its operations over to another. This is not the process's
        // pool, in which whoever reads text must find a thread.
        let pool = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).build();
        pool.context("cannot start the threads")?.install(|| work(&compute))
    }
}

/// Sets this process's number of threads. Must come before any parallel work.
pub fn start_threads(threads: Option<u16>) -> Result<()> {
    let share = |place: &Place| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (cores / place.local_world_size).max(1)
    };
    let Some(threads) = threads.map(usize::from).or_else(|| ranks::place().map(share)) else { return Ok(()) };
    let pool = ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().context("cannot start the threads")
}
