//! libtorch as a backend, on CPUs and CUDA GPUs, in f32 and bf16.
//!
//! One path of libtorch's operations serves every device, so what the suite checks on a CPU is what a GPU runs. Gradients
//! are written out, on [`t5_model::Tape`]: libtorch's own autograd has no operation for head and loss without all logits or
//! for grouped norms, and keeps more than T5's operations need.

mod attention;
mod cross_entropy;
mod device;
mod operations;
mod plan;
mod tensor;
mod update;

use fusion_core::{PlanDevice, TensorSource};
use t5_model::conformance::{Check, operations};
use t5_model::kernels::keep_freed_memory;
use t5_model::{Backend, Computation, DeviceInfo, ModelSession, Session, SessionError, T5Config};

use operations::TchOps;

struct Tch;

inventory::submit!(&Tch as &'static dyn Backend);

impl Tch {
    fn operations(&self, how: &Computation) -> t5_model::Result<TchOps> {
        let found = (self as &dyn Backend).device(how)?;
        let device =
            device::find(&found.name).ok_or_else(|| (self as &dyn Backend).no_device(&how.device))?;
        keep_freed_memory();
        tch::set_num_threads(i32::try_from(rayon::current_num_threads()).unwrap_or(i32::MAX));
        Ok(TchOps::new(device, how.precision))
    }
}

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

    fn open(
        &self,
        how: &Computation,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError> {
        Ok(Box::new(ModelSession::new(self.operations(how)?, how, config, weights)?))
    }

    fn plan_device(&self, device: &str) -> t5_model::Result<Box<dyn PlanDevice>> {
        let found = device::find(device).ok_or_else(|| (self as &dyn Backend).no_device(device))?;
        Ok(Box::new(plan::TchPlans::new(found)))
    }

    fn check_operations(&self, how: &Computation) -> Result<Vec<Check>, SessionError> {
        operations(self.operations(how)?, how.precision)
    }
}
