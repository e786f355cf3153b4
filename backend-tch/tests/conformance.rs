//! libtorch against what every backend must agree in.

use backend_tch as _;
use t5_model::conformance::{fused_models, suite};
use t5_model::{Computation, Precision, backend};

#[test]
fn passes_the_suite() {
    for precision in [Precision::F32, Precision::Bf16] {
        let how = Computation { precision, ..Computation::on("cpu") };
        let checks = suite(backend("tch").unwrap(), &how).unwrap();
        let failed: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
        assert!(checks.len() > 60 && failed.is_empty(), "{precision}: {failed:#?}");
    }
}

#[test]
fn what_there_is_not() {
    let missing = backend("tch").unwrap().plan_device("tpu").err().map(|error| error.to_string());
    assert!(missing.is_some_and(|missing| missing.starts_with("tch has no device \"tpu\"; available: cpu")));
}

/// The host's snapshot.
#[test]
fn fused_models_are_the_hosts() {
    let device = backend("tch").unwrap().plan_device("cpu").unwrap();
    insta::with_settings!({ snapshot_path => "../../t5-model/src/conformance/snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("fused_models", fused_models(Some(device.as_ref())).unwrap());
    });
}
