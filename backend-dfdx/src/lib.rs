//! The dfdx framework as a backend: its tensors, gradients and tape, with T5's operations as fused kernels, on the CPU.

mod operations;
mod plan;
mod tape;
mod tensor;

use fusion_core::TensorSource;
use fusion_core::execute::PlanDevice;
use t5_model::backend::ModelSession;
use t5_model::backend::kernels::keep_freed_memory;
use t5_model::conformance::{Check, operations};
use t5_model::{Backend, Computation, DeviceInfo, Precision, Session, SessionError, T5Config};

struct Dfdx;

impl Dfdx {
    fn operations(&self, how: &Computation) -> t5_model::Result<operations::DfdxOps> {
        (self as &dyn Backend).device(how)?;
        Ok(operations::DfdxOps::default())
    }
}

inventory::submit!(&Dfdx as &'static dyn Backend);

impl Backend for Dfdx {
    fn name(&self) -> &'static str {
        "dfdx"
    }

    fn description(&self) -> &'static str {
        "dfdx 0.13.0"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        let threads = rayon::current_num_threads();
        vec![DeviceInfo {
            name: "cpu".into(),
            description: format!("fused kernels, {threads} threads"),
            precisions: vec![Precision::F32],
        }]
    }

    fn open(
        &self,
        how: &Computation,
        config: &T5Config,
        weights: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError> {
        keep_freed_memory();
        Ok(Box::new(ModelSession::new(self.operations(how)?, how, config, weights)?))
    }

    fn check_operations(&self, how: &Computation) -> Result<Vec<Check>, SessionError> {
        operations(self.operations(how)?, how.precision)
    }

    fn plan_device(&self, device: &str) -> t5_model::Result<Box<dyn PlanDevice>> {
        (self as &dyn Backend).device(&Computation::on(device))?;
        Ok(Box::new(plan::DfdxPlans::default()))
    }
}
