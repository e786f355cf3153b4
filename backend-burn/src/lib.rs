//! The burn framework as a backend: flex on the CPU, with T5's operations as fused kernels, and burn's own
//! operations, in f32 or bf16, on all other devices.

#![warn(missing_docs)]

mod cross_entropy;
mod flex;
mod plain;
mod plan;
mod update;

use std::sync::OnceLock;

use burn::tensor::Device;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use burn::tensor::{DeviceType, FloatDType};
use fusion_core::execute::PlanDevice;
use t5_model::backend::AnyOps;
use t5_model::backend::kernels::{keep_freed_memory, training_memory};
use t5_model::{Backend, Computation, DeviceInfo, Precision, TrainingMemory, TrainingSize};

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
        let cpu = |name: &str, what: &str, precisions: &[Precision]| DeviceInfo {
            name: name.into(),
            description: format!("flex with {what}, {threads} threads"),
            precisions: precisions.to_vec(),
        };
        let devices = [
            cpu("cpu", "fused kernels", &[Precision::F32]),
            cpu("cpu-plain", "burn's own operations, to compare with", &[Precision::F32, Precision::Bf16]),
        ];
        devices.into_iter().chain(accelerators().iter().map(|(device, _)| device.clone())).collect()
    }

    fn training_memory(&self, how: &Computation, size: &TrainingSize<'_>) -> Option<TrainingMemory> {
        (how.device == "cpu").then(|| training_memory(how, size))
    }

    fn operations(&self, how: &Computation) -> t5_model::Result<Box<dyn AnyOps>> {
        keep_freed_memory();
        Ok(match how.device.as_str() {
            "cpu" => Box::new(flex::FlexOps::default()),
            name => Box::new(plain::PlainOps::new(find(name)?, how.precision)),
        })
    }

    fn plan_device(&self, device: &str) -> t5_model::Result<Box<dyn PlanDevice>> {
        Ok(Box::new(plan::BurnPlans::new(find(device)?)))
    }
}

/// The burn device with this name.
fn find(name: &str) -> t5_model::Result<Device> {
    if name == "cpu" || name == "cpu-plain" {
        return Ok(Device::flex());
    }
    let found = accelerators().iter().find(|(info, _)| info.name == name).map(|(_, device)| device.clone());
    found.ok_or_else(|| Burn.no_device(name))
}

/// The GPUs of the compiled-in features. They are enumerated once: querying drivers takes time.
fn accelerators() -> &'static [(DeviceInfo, Device)] {
    static ACCELERATORS: OnceLock<Vec<(DeviceInfo, Device)>> = OnceLock::new();
    ACCELERATORS.get_or_init(|| {
        #[allow(unused_mut, reason = "without a GPU feature there is nothing to add")]
        let mut found: Vec<(DeviceInfo, Device)> = Vec::new();
        // Querying a device opens it; each CUDA device would lose memory to that.
        #[cfg(feature = "cuda")]
        found.extend(enumerate("cuda", DeviceType::Cuda, |_| ("burn's CUDA".into(), true)));
        #[cfg(feature = "wgpu")]
        found.extend(enumerate("wgpu", DeviceType::Wgpu, |device| {
            let name = device.identity().map(|identity| identity.name);
            let name = name.unwrap_or_else(|| "a device without a name".into());
            (format!("burn's wgpu, {name}"), device.supports_dtype(FloatDType::BF16))
        }));
        found
    })
}

/// The devices of a runtime, given their description and whether each supports bf16.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn enumerate(
    name: &str,
    kind: DeviceType,
    ask: impl Fn(&Device) -> (String, bool),
) -> impl Iterator<Item = (DeviceInfo, Device)> {
    // Without a driver, the runtimes panic instead of finding nothing.
    let devices = std::panic::catch_unwind(|| Device::enumerate(kind).into_vec()).unwrap_or_default();
    devices.into_iter().enumerate().map(move |(index, device)| {
        let (description, knows_bf16) = ask(&device);
        let precisions = [Precision::F32].into_iter().chain(knows_bf16.then_some(Precision::Bf16));
        let info =
            DeviceInfo { name: format!("{name}:{index}"), description, precisions: precisions.collect() };
        (info, device)
    })
}
