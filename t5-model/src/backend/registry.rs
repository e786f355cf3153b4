//! Backends register themselves: a crate that submits a [`Backend`] through `inventory` and is linked into the binary
//! can be chosen by name.

use std::fmt;

use fusion_core::TensorSource;
use fusion_core::execute::PlanDevice;

use serde::{Deserialize, Serialize};

use crate::conformance::Check;
use crate::{Error, Optimizer, Result, Session, SessionError, T5Config};

/// What activations and matrix products are computed in. Parameters, their gradients, the optimiser's state, norms, softmax
/// and loss are f32 in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Precision {
    #[default]
    F32,
    /// bfloat16: f32's range with 8 bits of precision.
    #[cfg_attr(feature = "clap", value(help = None::<&str>))]
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

/// Where and how a model is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct Computation {
    /// The backend's device.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DEVICE", default_value = "cpu"))]
    pub device: String,
    /// What activations and matrix products are computed in; parameters and the optimiser's state are f32 in either.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t))]
    pub precision: Precision,
    /// When training, keep only what enters each block and compute the rest again on the way back: less memory, a third
    /// more computation.
    #[cfg_attr(feature = "clap", arg(long))]
    pub checkpoint_activations: bool,
}

impl Computation {
    /// In f32 on a device.
    pub fn on(device: impl Into<String>) -> Self {
        Computation { device: device.into(), precision: Precision::F32, checkpoint_activations: false }
    }
}

/// A training whose memory is asked for.
#[derive(Clone, Copy, Debug)]
pub struct TrainingSize<'a> {
    pub config: &'a T5Config,
    /// On the device at a time.
    pub examples: usize,
    /// Tokens of an input and of a target.
    pub input_length: usize,
    pub target_length: usize,
    pub optimizer: Optimizer,
    pub dropout: bool,
}

/// What a training takes of a device's memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingMemory {
    /// Bytes at the peak, an estimate.
    pub peak: f64,
    /// Bytes of the device, if it is there.
    pub total: Option<f64>,
    /// The most examples at a time that fit into these.
    pub fitting: Option<usize>,
}

/// A device that a backend can use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// What `--device` takes: `cpu`, `cuda:0`.
    pub name: String,
    /// The hardware, for people.
    pub description: String,
    /// What it computes in; the default first.
    pub precisions: Vec<Precision>,
}

/// A tensor framework that can run T5. `docs/backends.md` is for who writes one.
pub trait Backend: Sync {
    /// What `--backend` takes.
    fn name(&self) -> &'static str;
    /// The framework and its version, for people.
    fn description(&self) -> &'static str;
    /// The default device first.
    fn devices(&self) -> Vec<DeviceInfo>;
    /// Puts a model on a device. `weights` holds every parameter of the configuration's table, with its shape.
    fn open(
        &self,
        how: &Computation,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError>;
    /// The memory that a training takes, where that can be told. The device need not be there.
    fn training_memory(&self, how: &Computation, size: &TrainingSize<'_>) -> Option<TrainingMemory> {
        let _ = (how, size);
        None
    }
    /// Executes plans on a device.
    fn plan_device(&self, device: &str) -> Result<Box<dyn PlanDevice>>;
    /// [`conformance::operations`](crate::conformance::operations) of what its sessions compute with.
    fn check_operations(&self, how: &Computation) -> Result<Vec<Check>, SessionError>;
}

impl dyn Backend {
    /// The device of a computation, which must be there and know the precision.
    pub fn device(&self, how: &Computation) -> Result<DeviceInfo> {
        let found = self.devices().into_iter().find(|device| device.name == how.device);
        let device = found.ok_or_else(|| self.no_device(&how.device))?;
        if !device.precisions.contains(&how.precision) {
            let available: Vec<_> = device.precisions.iter().map(Precision::to_string).collect();
            let (precision, available) = (how.precision, available.join(", "));
            return Err(Error::NoPrecision { device: device.name, precision, available });
        }
        Ok(device)
    }

    /// For a device that is not there.
    pub fn no_device(&self, device: &str) -> Error {
        let available: Vec<String> = self.devices().into_iter().map(|device| device.name).collect();
        let (backend, available) = (self.name().into(), available.join(", "));
        Error::NoDevice { backend, device: device.into(), available }
    }
}

inventory::collect!(&'static dyn Backend);

/// The backends linked into this binary, by name.
pub fn backends() -> Vec<&'static dyn Backend> {
    let mut backends: Vec<_> = inventory::iter::<&'static dyn Backend>.into_iter().copied().collect();
    backends.sort_by_key(|backend| backend.name());
    backends
}

/// The backend of that name.
pub fn backend(name: &str) -> Result<&'static dyn Backend> {
    let backends = backends();
    let available = || backends.iter().map(|backend| backend.name()).collect::<Vec<_>>().join(", ");
    let found = backends.iter().copied().find(|backend| backend.name() == name);
    found.ok_or_else(|| Error::NoBackend { name: name.into(), available: available() })
}
