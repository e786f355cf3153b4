//! Tells the loader where libtorch is.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(libraries) = env::var("DEP_BACKEND_TCH_LIBRARIES") {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{libraries}");
    }
}
