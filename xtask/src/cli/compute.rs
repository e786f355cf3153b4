//! Which backend, device and threads a command computes with.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use pipeline::Compute;
use t5_model::{Computation, Precision};

use crate::dev::build;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Computing")]
pub struct ComputeArguments {
    /// The tensor framework; `cargo xtask backends` lists them
    #[arg(long, value_name = "NAME", default_value = "burn")]
    pub backend: String,
    /// The backend's device
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// What activations and matrix products are computed in; parameters and the optimiser's state are f32 in either
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: PrecisionName,
    /// When training, keep only what enters each block and compute the rest again on the way back: less memory, a third
    /// more computation
    #[arg(long)]
    pub checkpoint_activations: bool,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum PrecisionName {
    F32,
    Bf16,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Precision::F32,
            PrecisionName::Bf16 => Precision::Bf16,
        }
    }
}

impl ComputeArguments {
    /// Finds the backend and the device, and sets the threads. Comes before any parallel work.
    pub fn start(&self) -> Result<Compute> {
        start_threads(self.threads)?;
        let backend = build::backend(&self.backend, Some(&self.device))?;
        Ok(Compute::new(backend, self.how())?)
    }

    /// What was asked for, whether there is such a device or not.
    pub fn how(&self) -> Computation {
        Computation {
            device: self.device.clone(),
            precision: self.precision.into(),
            checkpoint_activations: self.checkpoint_activations,
        }
    }
}

/// Sets the threads of this process. Comes before any parallel work.
pub fn start_threads(threads: Option<u16>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
    pool.build_global().context("cannot start the threads")
}
