//! The burn framework as a backend: flex on the CPU with T5's operations as fused kernels, and burn's own operations on
//! every other device.

mod allocator;
mod flex;
mod kernels;
mod plain;
mod plan;

use burn::tensor::Device;
use fusion_core::{PlanDevice, TensorSource};
use t5_model::{Backend, DeviceInfo, ModelSession, Session, SessionError, T5Config};

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
        if device == "cpu" {
            return Ok(Box::new(ModelSession::new(flex::FlexOps::default(), config, weights)?));
        }
        Ok(Box::new(ModelSession::new(plain::PlainOps::new(find(device)?), config, weights)?))
    }

    fn plan_device(&self, device: &str) -> t5_model::Result<Box<dyn PlanDevice>> {
        Ok(Box::new(plan::BurnPlans::new(find(device)?)))
    }
}

/// The burn device of a name.
fn find(name: &str) -> t5_model::Result<Device> {
    if name == "cpu" || name == "cpu-plain" {
        return Ok(Device::flex());
    }
    let mut accelerators = accelerators().into_iter();
    let found = accelerators.find(|(info, _)| info.name == name).map(|(_, device)| device);
    found.ok_or_else(|| (&Burn as &dyn Backend).no_device(name))
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
