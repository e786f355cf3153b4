//! burn against what every backend must agree in.

use backend_burn as _;
use t5_model::conformance::{fused_models, suite};
use t5_model::{Computation, Precision, backend};

const DEVICES: [&str; 2] = ["cpu", "cpu-plain"];

#[test]
fn passes_the_suite() {
    for (device, precision) in
        [("cpu", Precision::F32), ("cpu-plain", Precision::F32), ("cpu-plain", Precision::Bf16)]
    {
        let how = Computation { precision, ..Computation::on(device) };
        let checks = suite(backend("burn").unwrap(), &how).unwrap();
        let failed: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
        assert!(checks.len() > 60 && failed.is_empty(), "{device}, {precision}: {failed:#?}");
    }
}

#[test]
fn what_there_is_not() {
    let burn = backend("burn").unwrap();
    let missing = burn.plan_device("tpu").err().map(|error| error.to_string());
    assert!(missing.is_some_and(|missing| missing.contains("cpu-plain")));
    let half = Computation { precision: Precision::Bf16, ..Computation::on("cpu") };
    let missing = burn.check_operations(&half).err().map(|error| error.to_string());
    assert_eq!(missing.as_deref(), Some("cpu does not compute in bf16; it does in f32"));
}

/// The same snapshot holds for the host and for every device.
#[test]
fn fused_models_are_the_same_everywhere() {
    let devices = DEVICES.map(|name| backend("burn").unwrap().plan_device(name).unwrap());
    for device in devices.iter().map(|device| Some(device.as_ref())).chain([None]) {
        insta::with_settings!({ snapshot_path => "../../t5-model/src/conformance/snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("fused_models", fused_models(device).unwrap());
        });
    }
}
