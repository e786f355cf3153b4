//! The suite on an unfinished backend: what exists is checked, and what is missing fails with a message
//! saying so.

use fusion_core::execute::{PlacedBox, PlanDevice};
use fusion_core::{HostTensor, TensorSource};
use t5_model::backend::AnyOps;
use t5_model::conformance::suite;
use t5_model::{Backend, Computation, DeviceInfo, Session, SessionError, T5Config};

use crate::minimal_backend::Minimal;

/// Has operations, but neither sessions nor plans.
struct Unfinished;

struct UnfinishedPlans;

impl Backend for Unfinished {
    fn name(&self) -> &'static str {
        "unfinished"
    }

    fn description(&self) -> &'static str {
        "operations only"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        Minimal.devices()
    }

    fn open(
        &self,
        _: &Computation,
        _: &T5Config,
        _: &dyn TensorSource,
    ) -> Result<Box<dyn Session>, SessionError> {
        todo!("sessions")
    }

    fn operations(&self, how: &Computation) -> t5_model::Result<Box<dyn AnyOps>> {
        Minimal.operations(how)
    }

    fn plan_device(&self, _: &str) -> t5_model::Result<Box<dyn PlanDevice>> {
        Ok(Box::new(UnfinishedPlans))
    }
}

impl PlanDevice for UnfinishedPlans {
    fn add_boxes(
        &self,
        _: &[usize],
        _: Option<HostTensor>,
        _: Vec<PlacedBox>,
    ) -> Result<HostTensor, Box<dyn std::error::Error + Send + Sync>> {
        Err("no plans yet".into())
    }
}

#[test]
fn the_suite_goes_on() {
    let checks = suite(&Unfinished, &Computation::on("cpu")).unwrap();
    for check in checks {
        let expected = match check.name.split_once(": ").map(|(part, _)| part) {
            Some("model" | "fusion" | "training") => Some("sessions"),
            Some("plan") => Some("no plans yet"),
            _ => None,
        };
        let failure = check.failure.as_deref();
        assert_eq!(check.passed(), expected.is_none(), "{check:?}");
        assert!(
            expected.is_none_or(|expected| failure.is_some_and(|failure| failure.contains(expected))),
            "{check:?}"
        );
    }
}
