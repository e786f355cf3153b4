//! Backends register themselves: a crate that submits a [`Backend`] through `inventory` and is linked into the binary
//! can be chosen by name.

use fusion_core::{PlanDevice, TensorSource};

use crate::{Error, Result, Session, SessionError, T5Config};

/// A device that a backend can use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// What `--device` takes: `cpu`, `cuda:0`.
    pub name: String,
    /// The hardware, for people.
    pub description: String,
}

/// A tensor framework that can run T5.
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
        device: &str,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError>;
    /// Executes plans on a device.
    fn plan_device(&self, device: &str) -> Result<Box<dyn PlanDevice>>;
}

impl dyn Backend {
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
