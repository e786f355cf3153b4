//! libtorch as a backend, on CPUs and CUDA GPUs, in f32 and bf16.
//!
//! Matrix products are libtorch's on every device, except for f32 on processors from AMD with AVX-512, which its
//! MKL does not use there. On GPUs, norms, attention, activations, loss, AdamW and
//! Adafactor are our own kernels (`cuda`); on CPUs, and on GPUs that cannot run those, they are libtorch operations.
//! Gradients are written by hand, on [`t5_model::backend::Tape`]: libtorch's autograd has no operation for
//! grouped norms or for head and loss without storing all logits, and it keeps more than T5's operations
//! need.

#![warn(missing_docs)]

mod attention;
mod bias;
mod cross_entropy;
mod cuda;
mod device;
mod memory;
mod node;
mod norm;
mod operations;
mod parameter;
mod plan;
mod process_group;
mod product;
mod profile;
mod tensor;
mod update;

use std::rc::Rc;

use fusion_core::execute::PlanDevice;
use t5_model::backend::AnyOps;
use t5_model::backend::kernels::keep_freed_memory;
use t5_model::{Backend, Computation, DeviceInfo, TrainingMemory, TrainingSize};

#[cfg(feature = "emulator")]
pub use cuda::emulator;
use memory::Memory;
use operations::TchOps;
pub use profile::Operations;

struct Tch;

inventory::submit!(&Tch as &'static dyn Backend);

impl Backend for Tch {
    fn name(&self) -> &'static str {
        "tch"
    }

    fn description(&self) -> &'static str {
        "tch 0.24.0, libtorch 2.11.0"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        device::all().into_iter().map(|(info, _)| info).collect()
    }

    fn training_memory(&self, how: &Computation, size: &TrainingSize<'_>) -> Option<TrainingMemory> {
        how.device.starts_with("cuda:").then(|| {
            let memory = device::find(&how.device).and_then(device::memory);
            let assumed = memory.unwrap_or(Memory::H100);
            TrainingMemory {
                peak: memory::training_peak(how, size, assumed),
                total: memory.map(|memory| memory.total),
                fitting: memory.and_then(|memory| memory::fitting(how, size, memory)),
                stored_attention: memory::stored_attention(how.precision, size, assumed),
            }
        })
    }

    fn operations(&self, how: &Computation) -> t5_model::Result<Box<dyn AnyOps>> {
        let device = device::find(&how.device).ok_or_else(|| self.no_device(&how.device))?;
        keep_freed_memory();
        tch::set_num_threads(i32::try_from(rayon::current_num_threads()).unwrap_or(i32::MAX));
        let kernels = device::kernels(&how.device, device).map(Rc::new);
        Ok(Box::new(TchOps::new(device, how.precision, kernels)))
    }

    fn plan_device(&self, device: &str) -> t5_model::Result<Box<dyn PlanDevice>> {
        let found = device::find(device).ok_or_else(|| self.no_device(device))?;
        Ok(Box::new(plan::TchPlans::new(found)))
    }
}
