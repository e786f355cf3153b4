//! Where the loader finds libtorch, which tch does not say, and what tch has no binding for.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim/profile.cpp");
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
        .include(include)
        .file("shim/profile.cpp")
        .compile("deep_fusion_shim");
}
