//! burn against what every backend must agree in.

use backend_burn as _;
use t5_model::backend;
use t5_model::conformance::{digest, fusion_cases, plan_execution};

const DEVICES: [&str; 2] = ["cpu", "cpu-plain"];

#[test]
fn plans_execute_as_on_the_host() {
    for name in DEVICES {
        let device = backend("burn").unwrap().plan_device(name).unwrap();
        for check in plan_execution(device.as_ref()).unwrap() {
            assert!(check.passed(), "{name}: {check:?}");
        }
    }
    let missing = backend("burn").unwrap().plan_device("tpu").err().map(|error| error.to_string());
    assert!(missing.is_some_and(|missing| missing.contains("cpu-plain")));
}

/// The same snapshot holds for the host and for every device.
#[test]
fn fused_models_are_the_same_everywhere() {
    let devices = DEVICES.map(|name| backend("burn").unwrap().plan_device(name).unwrap());
    for device in devices.iter().map(|device| Some(device.as_ref())).chain([None]) {
        let model = |case: t5_model::conformance::FusionCase| {
            format!("# {}\n\n{}\n{}\n", case.name, case.grown.plan, digest(&case.execute(device).unwrap()))
        };
        let models: String = fusion_cases().unwrap().into_iter().map(model).collect();
        insta::with_settings!({ snapshot_path => "../../t5-model/src/conformance/snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("fused_models", models);
        });
    }
}
