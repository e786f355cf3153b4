//! The CPU and the CUDA GPUs that libtorch sees.

use std::sync::Once;

use t5_model::{DeviceInfo, Precision};
use tch::{Cuda, Device};

use crate::cuda::{self, Kernels};
use crate::memory::Memory;

/// The CPU first.
pub fn all() -> Vec<(DeviceInfo, Device)> {
    let info = |name: String, description: String| DeviceInfo {
        name,
        description,
        precisions: vec![Precision::F32, Precision::Bf16],
    };
    let threads = rayon::current_num_threads();
    let cpu = (info("cpu".into(), format!("libtorch, {threads} threads")), Device::Cpu);
    let gpu = |index| {
        let kernels = match cuda::can_run(index) {
            Ok(()) => "kernels of our own".into(),
            Err(reason) => format!("libtorch's kernels only, for {reason}"),
        };
        (info(format!("cuda:{index}"), format!("libtorch, NVIDIA GPU, {kernels}")), Device::Cuda(index))
    };
    let all = std::iter::once(cpu).chain((0..gpus()).map(gpu));
    #[cfg(feature = "emulator")]
    let all = all.chain(cuda::emulator::ARCHITECTURES.map(|architecture| {
        let name = format!("{EMULATED}{architecture}");
        (info(name, "libtorch on the CPU, an emulated GPU's kernels".into()), Device::Cpu)
    }));
    all.collect()
}

/// Before the architecture in the name of an emulated GPU.
#[cfg(feature = "emulator")]
const EMULATED: &str = "emulated:";

/// Our own kernels, if the named device can run them.
#[cfg_attr(not(feature = "emulator"), expect(unused_variables))]
pub fn kernels(name: &str, device: Device) -> Option<Kernels> {
    #[cfg(feature = "emulator")]
    if let Some(architecture) = name.strip_prefix(EMULATED) {
        let known = cuda::emulator::ARCHITECTURES.into_iter().find(|known| *known == architecture);
        return known.map(Kernels::emulated);
    }
    match device {
        Device::Cuda(index) => Kernels::new(index).ok(),
        _ => None,
    }
}

pub fn find(name: &str) -> Option<Device> {
    all().into_iter().find(|(info, _)| info.name == name).map(|(_, device)| device)
}

/// A GPU's memory.
pub fn memory(device: Device) -> Option<Memory> {
    let Device::Cuda(index) = device else { return None };
    let cuda::Report { memory, shared_memory, .. } = cuda::Report::of(index).ok()?;
    Some(Memory { total: memory as f64, shared: shared_memory })
}

fn gpus() -> usize {
    static LOADED: Once = Once::new();
    LOADED.call_once(load_cuda);
    usize::try_from(Cuda::device_count()).unwrap_or(0)
}

/// Loads libtorch's CUDA half, which registers itself; the linker drops it because nothing refers to it by
/// name.
fn load_cuda() {
    #[cfg(target_os = "linux")]
    // SAFETY: the name is null-terminated; if there is no such library, nothing happens.
    unsafe {
        libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
    }
}
