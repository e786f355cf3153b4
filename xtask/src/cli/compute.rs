//! Selects the backend, device and threads that a command computes with.

use anyhow::{Context, Result};
use clap::Args;
use pipeline::Compute;
use rayon::ThreadPoolBuilder;
use t5_model::Computation;

use crate::dev::build;

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
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

impl ComputeArguments {
    /// Finds the backend and the device, and computes with them on so many threads. Must come before any parallel
    /// work.
    pub fn run<T: Send>(&self, work: impl FnOnce(&Compute) -> Result<T> + Send) -> Result<T> {
        start_threads(self.threads)?;
        let backend = build::backend(&self.backend, Some(&self.how.device))?;
        let compute = Compute::new(backend, self.how.clone())?;
        // A thread outside of the pool hands each of its operations over to another. This is not the process's
        // pool, in which whoever reads text must find a thread.
        let pool = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).build();
        pool.context("cannot start the threads")?.install(|| work(&compute))
    }
}

/// Sets this process's number of threads. Must come before any parallel work.
pub fn start_threads(threads: Option<u16>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    let pool = ThreadPoolBuilder::new().num_threads(threads.into());
    pool.build_global().context("cannot start the threads")
}
