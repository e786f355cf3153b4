//! Which backend, device and threads a command computes with.

use anyhow::{Context, Result};
use clap::Args;
use fusion_core::{Checkpoint, TensorSource};
use t5_model::{Session, SessionError, T5Config};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Computing")]
pub struct ComputeArguments {
    /// The tensor framework; `cargo xtask backends` lists them
    #[arg(long, value_name = "NAME", default_value = "burn")]
    pub backend: String,
    /// The backend's device
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// A backend on a device.
#[derive(Clone, Copy)]
pub struct Compute<'a> {
    backend: &'static dyn t5_model::Backend,
    device: &'a str,
}

impl ComputeArguments {
    /// Finds the backend and the device, and sets the threads. Comes before any parallel work.
    pub fn start(&self) -> Result<Compute<'_>> {
        self.start_threads()?;
        let backend = t5_model::backend(&self.backend)?;
        let devices: Vec<_> = backend.devices().into_iter().map(|device| device.name).collect();
        if !devices.contains(&self.device) {
            return Err(backend.no_device(&self.device).into());
        }
        Ok(Compute { backend, device: &self.device })
    }

    /// Sets the threads only.
    pub fn start_threads(&self) -> Result<()> {
        let Some(threads) = self.threads else { return Ok(()) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
        pool.build_global().context("cannot start the threads")
    }
}

impl Compute<'_> {
    pub fn open(
        &self,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError> {
        self.backend.open(self.device, config, weights)
    }

    /// Puts a checkpoint on the device.
    pub fn open_checkpoint(&self, checkpoint: &Checkpoint) -> Result<Box<dyn Session>> {
        let config = T5Config::of_checkpoint(checkpoint)?;
        let place = checkpoint.directory().display();
        self.open(&config, checkpoint)
            .with_context(|| format!("{place}: cannot put the model on {}", self.device))
    }
}
