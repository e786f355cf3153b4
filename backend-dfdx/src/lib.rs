//! The dfdx framework as a backend on the CPU: its tensors, gradients and tape, with T5's operations as fused
//! kernels.

#![warn(missing_docs)]

mod operations;
mod plan;
mod tape;
mod tensor;

use fusion_core::execute::PlanDevice;
use t5_model::backend::AnyOps;
use t5_model::backend::kernels::{keep_freed_memory, training_memory};
use t5_model::{Backend, Computation, DeviceInfo, Precision, TrainingMemory, TrainingSize};

struct Dfdx;

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

    fn training_memory(&self, how: &Computation, size: &TrainingSize<'_>) -> Option<TrainingMemory> {
        Some(training_memory(how, size))
    }

    fn operations(&self, _: &Computation) -> t5_model::Result<Box<dyn AnyOps>> {
        keep_freed_memory();
        Ok(Box::new(operations::DfdxOps::default()))
    }

    fn plan_device(&self, device: &str) -> t5_model::Result<Box<dyn PlanDevice>> {
        self.device(&Computation::on(device))?;
        Ok(Box::new(plan::DfdxPlans::default()))
    }
}
