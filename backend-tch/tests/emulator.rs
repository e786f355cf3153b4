//! The CUDA kernels, run on the CPU, against what every backend must agree in.
#![cfg(feature = "emulator")]

use backend_tch as _;
use t5_model::conformance::suite;
use t5_model::{Computation, Precision, backend};

fn passes(device: &str, precision: Precision) {
    let how = Computation { precision, ..Computation::on(device) };
    let checks = suite(backend("tch").unwrap(), &how).unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
    assert!(checks.len() > 60 && failed.is_empty(), "{precision}: {failed:#?}");
}

#[test]
fn f32() {
    passes("emulated:sm_80", Precision::F32);
}

#[test]
fn bf16() {
    passes("emulated:sm_80", Precision::Bf16);
}

#[test]
fn bf16_on_hopper() {
    passes("emulated:sm_90a", Precision::Bf16);
}
