//! A backend as plain as possible, in loops over `Vec<f32>`, to read alongside `docs/backends.md`. Nothing
//! here is fast.

mod attention;
mod loss;
mod operations;
mod plan;

use fusion_core::execute::PlanDevice;
use t5_model::backend::AnyOps;
use t5_model::{Backend, Computation, DeviceInfo, Precision};

use operations::MinimalOps;

pub struct Minimal;

inventory::submit!(&Minimal as &'static dyn Backend);

impl Backend for Minimal {
    fn name(&self) -> &'static str {
        "minimal"
    }

    fn description(&self) -> &'static str {
        "plain loops"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        let (name, description) = ("cpu".into(), "one thread".into());
        vec![DeviceInfo { name, description, precisions: vec![Precision::F32] }]
    }

    fn operations(&self, _: &Computation) -> t5_model::Result<Box<dyn AnyOps>> {
        Ok(Box::new(MinimalOps::default()))
    }

    fn plan_device(&self, device: &str) -> t5_model::Result<Box<dyn PlanDevice>> {
        self.device(&Computation::on(device))?;
        Ok(Box::new(plan::MinimalPlans))
    }
}
