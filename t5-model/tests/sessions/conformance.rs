//! The minimal backend checked against what every backend must satisfy.

use t5_model::conformance::suite;
use t5_model::{Computation, Precision, T5Config, backend};

#[test]
fn passes_the_suite() {
    let checks = suite(backend("minimal").unwrap(), &Computation::on("cpu")).unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
    assert!(checks.len() > 90 && failed.is_empty(), "{failed:#?}");
}

#[test]
fn refuses_what_it_has_not() {
    let minimal = backend("minimal").unwrap();
    let half = Computation { precision: Precision::Bf16, ..Computation::on("cpu") };
    let other = Computation::on("cuda:0");
    let refused = [
        (&half, "cpu does not compute in bf16; it does in f32"),
        (&other, "minimal has no device \"cuda:0\"; available: cpu"),
    ];
    for (how, expected) in refused {
        let config = T5Config::v1_1(16, 4, 1, 4, 4, 1);
        let weights = t5_model::initialize(&config, t5_model::Initialization::T5, 1).unwrap();
        assert_eq!(minimal.open(how, &config, &weights).err().unwrap().to_string(), expected);
        assert_eq!(minimal.check_operations(how).unwrap_err().to_string(), expected);
    }
    let refused = minimal.plan_device("cuda:0").err().unwrap();
    assert_eq!(refused.to_string(), "minimal has no device \"cuda:0\"; available: cpu");
}
