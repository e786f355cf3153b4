//! Where the loader finds libtorch, which tch does not say, and what tch has no binding for.

use std::env;
use std::path::PathBuf;

const SOURCES: [&str; 2] = ["shim/profile.cpp", "shim/process_group.cpp"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim");
    let Ok(libraries) = env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    // The argument is for this crate's own tests; the key is for the program that links the crate.
    println!("cargo::rustc-link-arg=-Wl,-rpath,{libraries}");
    println!("cargo::metadata=LIBRARIES={libraries}");
    // As torch-sys has it.
    let include = env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    let include = include.unwrap_or_else(|| PathBuf::from(&libraries).join("..")).join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .define("USE_C10D_GLOO", None)
        .include("shim")
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .files(SOURCES)
        .compile("deep_fusion_shim");
}
