//! The CUDA kernels, run on the CPU, against what every backend must agree in.
#![cfg(feature = "emulator")]

use backend_tch::emulator::not_launched;
use t5_model::conformance::suite;
use t5_model::{Computation, Precision, backend};

fn passes_the_suite(architecture: &str) {
    for precision in [Precision::F32, Precision::Bf16] {
        let how = Computation { precision, ..Computation::on(format!("emulated:{architecture}")) };
        let checks = suite(backend("tch").unwrap(), &how).unwrap();
        let failed: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
        assert!(checks.len() > 60 && failed.is_empty(), "{precision}: {failed:#?}");
    }
    assert_eq!(not_launched(architecture), Vec::<String>::new());
}

#[test]
fn ampere() {
    passes_the_suite("sm_80");
}

#[test]
fn hopper() {
    passes_the_suite("sm_90a");
}
