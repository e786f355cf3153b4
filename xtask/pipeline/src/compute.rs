//! What a stage computes on.

use std::sync::Arc;

use anyhow::{Context, Result};
use fusion_core::TensorSource;
use fusion_core::checkpoint::Checkpoint;
use serde_json::{Value, json};
use t5_model::backend::ProcessGroup;
use t5_model::train::Control;
use t5_model::{Backend, Computation, ComputeChoice, Precision, Session, SessionError, T5Config};

use crate::Watch;

/// A backend and how it computes, in this process or together with others.
#[derive(Clone)]
pub struct Compute {
    backend: &'static dyn Backend,
    how: Computation,
    group: Option<Arc<dyn ProcessGroup>>,
    /// The number of this process among those of the group on this machine.
    local_rank: usize,
}

/// The device that every backend has.
const CPU: &str = "cpu";

impl Compute {
    /// Fails if the backend has no such device, or the device does not support that precision.
    pub fn new(backend: &'static dyn Backend, how: Computation) -> t5_model::Result<Self> {
        Compute::in_group(backend, how, None, 0)
    }

    /// The same for one of several processes, and its number among those on this machine. A device without a
    /// number, such as `cuda`, is the one with this number. Fails as [`Compute::new`].
    pub fn in_group(
        backend: &'static dyn Backend,
        how: Computation,
        group: Option<Arc<dyn ProcessGroup>>,
        local_rank: usize,
    ) -> t5_model::Result<Self> {
        let own = Computation { device: format!("{}:{local_rank}", how.device), ..how.clone() };
        let is_there = |how: &Computation| backend.devices().iter().any(|device| device.name == how.device);
        let how = if !is_there(&how) && is_there(&own) { own } else { how };
        backend.device(&how)?;
        Ok(Compute { backend, how, group, local_rank })
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
        Compute::in_group(backend, how, self.group.clone(), self.local_rank)
    }

    /// The processes that compute together with this one, if there are any.
    pub fn group(&self) -> Option<&Arc<dyn ProcessGroup>> {
        self.group.as_ref()
    }

    /// Whether this process writes files: one alone, or the first of several.
    pub fn writes(&self) -> bool {
        self.group.as_ref().is_none_or(|group| group.is_first())
    }

    /// What a training is told while it runs.
    pub fn control<'a>(&self, watch: &'a dyn Watch) -> Control<'a> {
        Control::new(watch.stop(), self.group.clone())
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
    pub fn identity(&self) -> impl Iterator<Item = (String, Value)> {
        let reduced_in = self.group.as_ref().map(|group| group.options().reduce_in).unwrap_or_default();
        let all = [("precision", self.how.precision), ("reduce_precision", reduced_in)];
        let said = all.into_iter().filter(|(_, precision)| *precision != Precision::default());
        said.map(|(key, precision)| (key.to_owned(), json!(precision)))
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
