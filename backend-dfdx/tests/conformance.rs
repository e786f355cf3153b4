//! dfdx against what every backend must agree in.

use backend_dfdx as _;
use t5_model::conformance::{fused_models, suite};
use t5_model::{Computation, Precision, backend};

#[test]
fn passes_the_suite() {
    let checks = suite(backend("dfdx").unwrap(), &Computation::on("cpu")).unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
    assert!(checks.len() > 60 && failed.is_empty(), "{failed:#?}");
}

#[test]
fn what_there_is_not() {
    let dfdx = backend("dfdx").unwrap();
    let missing = dfdx.plan_device("cuda:0").err().map(|error| error.to_string());
    assert!(missing.is_some_and(|missing| missing.contains("cpu")));
    let half = Computation { precision: Precision::Bf16, ..Computation::on("cpu") };
    let missing = dfdx.check_operations(&half).err().map(|error| error.to_string());
    assert_eq!(missing.as_deref(), Some("cpu does not compute in bf16; it does in f32"));
}

/// The host's snapshot.
#[test]
fn fused_models_are_the_hosts() {
    let device = backend("dfdx").unwrap().plan_device("cpu").unwrap();
    insta::with_settings!({ snapshot_path => "../../t5-model/src/conformance/snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("fused_models", fused_models(Some(device.as_ref())).unwrap());
    });
}
