//! What a stage computes on.

use anyhow::{Context, Result};
use fusion_core::TensorSource;
use fusion_core::checkpoint::Checkpoint;
use serde_json::{Value, json};
use t5_model::{Backend, Computation, ComputeChoice, Precision, Session, SessionError, T5Config};

/// A backend and how it computes.
#[derive(Clone)]
pub struct Compute {
    backend: &'static dyn Backend,
    how: Computation,
}

/// The device that every backend has.
const CPU: &str = "cpu";

impl Compute {
    /// Fails if the backend has no such device, or the device does not support that precision.
    pub fn new(backend: &'static dyn Backend, how: Computation) -> t5_model::Result<Self> {
        backend.device(&how)?;
        Ok(Compute { backend, how })
    }

    /// What is chosen, and this where nothing is. Fails if the backend is not linked, or as [`Compute::new`].
    pub fn chosen(&self, choice: &ComputeChoice) -> t5_model::Result<Self> {
        let ComputeChoice { backend, device, precision, checkpoint_activations, threads: _ } = choice;
        let (backend, own) = match backend {
            Some(name) if name != self.backend.name() => (t5_model::backend(name)?, Computation::on(CPU)),
            _ => (self.backend, self.how.clone()),
        };
        let how = Computation {
            device: device.clone().unwrap_or(own.device),
            precision: precision.unwrap_or(self.how.precision),
            checkpoint_activations: checkpoint_activations.unwrap_or(self.how.checkpoint_activations),
        };
        Compute::new(backend, how)
    }

    /// The backend that opens the sessions.
    pub fn backend(&self) -> &'static dyn Backend {
        self.backend
    }

    /// The device to compute on, and the precision.
    pub fn how(&self) -> &Computation {
        &self.how
    }

    /// What of it decides a result, for an identity. f32 goes without saying: there were runs before there was anything else.
    pub fn identity(&self) -> Option<(String, Value)> {
        let precision = self.how.precision;
        (precision != Precision::default()).then(|| ("precision".to_owned(), json!(precision)))
    }

    /// Loads a model onto the device. `weights` holds every parameter of the configuration.
    pub fn open(
        &self,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError> {
        self.backend.open(&self.how, config, weights)
    }

    /// Loads a checkpoint onto the device.
    pub fn open_checkpoint(&self, checkpoint: &Checkpoint) -> Result<Box<dyn Session>> {
        let config = T5Config::of_checkpoint(checkpoint)?;
        let place = checkpoint.directory().display();
        self.open(&config, checkpoint)
            .with_context(|| format!("{place}: cannot put the model on {}", self.how.device))
    }
}
