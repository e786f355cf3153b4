//! The burn framework as a backend: flex on the CPU with T5's operations as fused kernels, and burn's own operations on
//! every other device.

mod allocator;
mod flex;
mod kernels;
mod plain;

use burn::tensor::Device;
use fusion_core::TensorSource;
use t5_model::{Backend, DeviceInfo, Error, ModelSession, Session, SessionError, T5Config};

struct Burn;

inventory::submit!(&Burn as &'static dyn Backend);

impl Backend for Burn {
    fn name(&self) -> &'static str {
        "burn"
    }

    fn description(&self) -> &'static str {
        "burn 0.22.1"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        let threads = rayon::current_num_threads();
        let cpu = |name: &str, what: &str| DeviceInfo {
            name: name.into(),
            description: format!("flex with {what}, f32, {threads} threads"),
        };
        let devices =
            [cpu("cpu", "fused kernels"), cpu("cpu-plain", "burn's own operations, to compare with")];
        devices.into_iter().chain(accelerators().into_iter().map(|(device, _)| device)).collect()
    }

    fn open(
        &self,
        device: &str,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError> {
        allocator::keep_freed_memory();
        let plain = match device {
            "cpu" => return Ok(Box::new(ModelSession::new(flex::FlexOps::default(), config, weights)?)),
            "cpu-plain" => Some(Device::flex()),
            _ => accelerators().into_iter().find(|(info, _)| info.name == device).map(|(_, device)| device),
        };
        let Some(plain) = plain else {
            let names: Vec<_> = self.devices().into_iter().map(|device| device.name).collect();
            let (backend, device) = (self.name().into(), device.into());
            return Err(Error::NoDevice { backend, device, available: names.join(", ") }.into());
        };
        Ok(Box::new(ModelSession::new(plain::PlainOps::new(plain), config, weights)?))
    }
}

/// The GPUs of the compiled-in features.
fn accelerators() -> Vec<(DeviceInfo, Device)> {
    #[allow(unused_mut, reason = "without a GPU feature there is nothing to add")]
    let mut found: Vec<(DeviceInfo, Device)> = Vec::new();
    #[cfg(feature = "cuda")]
    found.extend(enumerate("cuda", burn::tensor::DeviceType::Cuda));
    #[cfg(feature = "wgpu")]
    found.extend(enumerate("wgpu", burn::tensor::DeviceType::Wgpu));
    found
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn enumerate(name: &str, kind: burn::tensor::DeviceType) -> impl Iterator<Item = (DeviceInfo, Device)> {
    // Without a driver, the runtimes panic rather than find nothing.
    let devices = std::panic::catch_unwind(|| Device::enumerate(kind).into_vec()).unwrap_or_default();
    devices.into_iter().enumerate().map(move |(index, device)| {
        let info = DeviceInfo { name: format!("{name}:{index}"), description: format!("{device:?}, f32") };
        (info, device)
    })
}
