//! Backends register themselves: once a crate that submits a [`Backend`] through `inventory` is linked into
//! the binary, the backend can be chosen by name.

use fusion_core::TensorSource;
use fusion_core::execute::PlanDevice;

use super::{Computation, DeviceInfo, ModelSession, Ops, Precision, Session, TrainingMemory, TrainingSize};
use crate::conformance::{self, Check};
use crate::{Error, Result, SessionError, T5Config};

/// A tensor framework that can run T5. `docs/backends.md` explains how to write one.
pub trait Backend: Sync {
    /// What `--backend` takes.
    fn name(&self) -> &'static str;

    /// The framework and its version, for people.
    fn description(&self) -> &'static str;

    /// The devices that are present, the default first.
    fn devices(&self) -> Vec<DeviceInfo>;

    /// T5's operations on a device that [`Backend::device`] has found.
    fn operations(&self, how: &Computation) -> Result<Box<dyn AnyOps>>;

    /// The device on which fusion plans are executed.
    ///
    /// # Errors
    /// The device is not present: see [`Backend::no_device`].
    fn plan_device(&self, device: &str) -> Result<Box<dyn PlanDevice>>;

    /// The memory that training takes, where the backend can tell. The device need not be present.
    fn training_memory(&self, _how: &Computation, _size: &TrainingSize<'_>) -> Option<TrainingMemory> {
        None
    }

    /// Puts a model on a device. `weights` holds every parameter in the configuration's table, in its shape.
    ///
    /// # Errors
    /// The device is not present or lacks the precision, the weights do not fit the configuration, or the
    /// device fails.
    fn open(
        &self,
        how: &Computation,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError> {
        self.device(how)?;
        self.operations(how)?.open(how, config, weights)
    }

    /// Compares the operations that sessions compute with against PyTorch's:
    /// [`conformance::operations`](crate::conformance::operations).
    ///
    /// # Errors
    /// The device is not present or lacks the precision, or the references cannot be read.
    fn check_operations(&self, how: &Computation) -> Result<Vec<Check>, SessionError> {
        self.device(how)?;
        self.operations(how)?.check(how.precision)
    }

    /// The device of a computation.
    ///
    /// # Errors
    /// [`Error::NoDevice`] or [`Error::NoPrecision`].
    fn device(&self, how: &Computation) -> Result<DeviceInfo> {
        let found = self.devices().into_iter().find(|device| device.name == how.device);
        let device = found.ok_or_else(|| self.no_device(&how.device))?;
        if !device.precisions.contains(&how.precision) {
            let available: Vec<_> = device.precisions.iter().map(Precision::to_string).collect();
            let (precision, available) = (how.precision, available.join(", "));
            return Err(Error::NoPrecision { device: device.name, precision, available });
        }
        Ok(device)
    }

    /// The error for a device that is not present.
    fn no_device(&self, device: &str) -> Error {
        let available: Vec<String> = self.devices().into_iter().map(|device| device.name).collect();
        let (backend, available) = (self.name().into(), available.join(", "));
        Error::NoDevice { backend, device: device.into(), available }
    }
}

/// [`Ops`] of any type, so that a backend can choose its operations at run time.
pub trait AnyOps {
    /// A session that computes with these operations: a [`ModelSession`].
    ///
    /// # Errors
    /// The weights do not fit the configuration, or the device fails.
    fn open(
        self: Box<Self>,
        how: &Computation,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError>;

    /// [`conformance::operations`](crate::conformance::operations) of these operations.
    ///
    /// # Errors
    /// The references cannot be read.
    fn check(self: Box<Self>, precision: Precision) -> Result<Vec<Check>, SessionError>;
}

impl<O: Ops + 'static> AnyOps for O {
    fn open(
        self: Box<Self>,
        how: &Computation,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError> {
        Ok(Box::new(ModelSession::new(*self, how, config, weights)?))
    }

    fn check(self: Box<Self>, precision: Precision) -> Result<Vec<Check>, SessionError> {
        conformance::operations(*self, precision)
    }
}

inventory::collect!(&'static dyn Backend);

/// The backends linked into this binary, sorted by name.
pub fn backends() -> Vec<&'static dyn Backend> {
    let mut backends: Vec<_> = inventory::iter::<&'static dyn Backend>.into_iter().copied().collect();
    backends.sort_by_key(|backend| backend.name());
    backends
}

/// The backend with a name.
///
/// # Errors
/// [`Error::NoBackend`].
pub fn backend(name: &str) -> Result<&'static dyn Backend> {
    let backends = backends();
    let available = || backends.iter().map(|backend| backend.name()).collect::<Vec<_>>().join(", ");
    let found = backends.iter().copied().find(|backend| backend.name() == name);
    found.ok_or_else(|| Error::NoBackend { name: name.into(), available: available() })
}
