//! Where and how a model is computed, and what that takes of a device.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Optimizer, T5Config};

/// The number format of activations and matrix products. Parameters, gradients, optimiser state, norms,
/// softmax and the loss are f32 in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    #[cfg_attr(feature = "clap", value(help = None::<&str>))]
    F32,
    /// bfloat16: the range of f32 with 8 bits of precision.
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
    /// The type in which activations and matrix products are computed; parameters and the optimiser state are
    /// always f32.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t))]
    pub precision: Precision,
    /// When training, keep only the inputs of each block and recompute the rest in the backward pass: less
    /// memory, a third more computation.
    #[cfg_attr(feature = "clap", arg(long))]
    pub checkpoint_activations: bool,
}

impl Computation {
    /// In f32 on a device, with all activations kept.
    pub fn on(device: impl Into<String>) -> Self {
        Computation { device: device.into(), precision: Precision::F32, checkpoint_activations: false }
    }

    /// Whether the device is the host's processor.
    pub fn is_on_cpu(&self) -> bool {
        self.device.starts_with("cpu")
    }
}

/// What to compute on, as far as that is said. Whatever is left out is decided elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ComputeChoice {
    /// The tensor framework, as listed by the command `backends`.
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub backend: Option<String>,
    /// The backend's device, such as `cpu` or `cuda:0`.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DEVICE"))]
    pub device: Option<String>,
    /// The type in which activations and matrix products are computed.
    ///
    /// Parameters and the optimiser state are always f32.
    #[cfg_attr(feature = "clap", arg(long, value_enum))]
    pub precision: Option<Precision>,
    /// When training, keep only the inputs of each block and recompute the rest in the backward pass: less
    /// memory, a third more computation.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", default_missing_value = "true"))]
    pub checkpoint_activations: Option<bool>,
    /// Threads to compute with.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024)))]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1024)))]
    pub threads: Option<u16>,
}

impl ComputeChoice {
    /// This choice, and where it leaves something open, another's.
    pub fn or(self, other: &ComputeChoice) -> Self {
        let ComputeChoice { backend, device, precision, checkpoint_activations, threads } = other.clone();
        ComputeChoice {
            // A device belongs to its backend.
            device:
                self.device
                    .or(device
                        .filter(|_| self.backend.is_none() || backend.is_none() || self.backend == backend)),
            backend: self.backend.or(backend),
            precision: self.precision.or(precision),
            checkpoint_activations: self.checkpoint_activations.or(checkpoint_activations),
            threads: self.threads.or(threads),
        }
    }
}

/// A training run whose memory is to be estimated.
#[derive(Clone, Copy, Debug)]
pub struct TrainingSize<'a> {
    /// The model.
    pub config: &'a T5Config,
    /// Examples on the device at a time.
    pub examples: usize,
    /// Tokens of an input.
    pub input_length: usize,
    /// Tokens of a target.
    pub target_length: usize,
    /// The optimiser, which decides how much state each parameter has.
    pub optimizer: Optimizer,
    /// Whether anything is dropped.
    pub dropout: bool,
}

impl TrainingSize<'_> {
    /// The largest divisor of the batch that fits, if any.
    pub fn fitting(&self, fits: impl Fn(&TrainingSize<'_>) -> bool) -> Option<usize> {
        let mut divisors =
            (1..=self.examples).rev().filter(|examples| self.examples.is_multiple_of(*examples));
        divisors.find(|examples| fits(&TrainingSize { examples: *examples, ..*self }))
    }
}

/// A training run's demand on a device's memory.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingMemory {
    /// Estimated peak, in bytes.
    pub peak: f64,
    /// Memory of the device in bytes, if the device is present.
    pub total: Option<f64>,
    /// The most examples at a time that fit, if the device is present.
    pub fitting: Option<usize>,
    /// If attention stores its probabilities there: what the kernels take that do not.
    pub stored_attention: Option<String>,
}

/// A device that a backend can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// What `--device` takes: `cpu`, `cuda:0`.
    pub name: String,
    /// The hardware, for people.
    pub description: String,
    /// Supported number formats, the default first.
    pub precisions: Vec<Precision>,
}
