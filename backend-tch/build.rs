//! Where the loader finds libtorch. tch sets no run path.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(libraries) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        // The argument is for this crate's own tests; the key is for the program that links the crate.
        println!("cargo::rustc-link-arg=-Wl,-rpath,{libraries}");
        println!("cargo::metadata=LIBRARIES={libraries}");
    }
}
