//! Finds the text of the `webster` crate, whose interface only looks up single words.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_WEBSTER").is_none() {
        return;
    }
    match dictionary() {
        Ok(path) => println!("cargo::rustc-env=WEBSTER_DICTIONARY={path}"),
        Err(problem) => println!("cargo::error=cannot find the source of the crate `webster`: {problem}"),
    }
}

fn dictionary() -> Result<String, String> {
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let output = Command::new(variable("CARGO")?)
        .args(["metadata", "--format-version", "1", "--filter-platform", &variable("TARGET")?])
        .args(["--manifest-path", &format!("{}/Cargo.toml", variable("CARGO_MANIFEST_DIR")?)])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages.find(|package| package["name"] == "webster");
    let manifest = manifest.and_then(|package| package["manifest_path"].as_str());
    let folder = manifest.and_then(|manifest| Path::new(manifest).parent());
    let file = folder.ok_or("it is no dependency")?.join("src/dictionary.json");
    if file.is_file() { Ok(file.display().to_string()) } else { Err(format!("no {}", file.display())) }
}
