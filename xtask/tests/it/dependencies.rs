//! The direction of dependencies in the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Every crate's normal and build dependencies, by name. Tests may use anything.
fn dependencies(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let of = |package: &cargo_metadata::Package| {
        let normal =
            package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
        normal.map(|dependency| dependency.name.clone()).collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), of(package))).collect()
}

#[test]
fn dependencies_point_one_way() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let dependencies = dependencies(&metadata);
    let crates: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let backends: BTreeSet<&str> =
        crates.iter().copied().filter(|name| name.starts_with("backend-")).collect();
    assert!(crates.is_superset(&BTreeSet::from([
        "fusion-core",
        "t5-model",
        "glue-eval",
        "backend-burn",
        "pipeline",
        "xtask"
    ])));

    for (name, dependencies) in &dependencies {
        let own: BTreeSet<&str> =
            dependencies.iter().map(String::as_str).filter(|other| crates.contains(other)).collect();
        let allowed = match name.as_str() {
            "fusion-core" | "workspace-hack" => BTreeSet::new(),
            "t5-model" => BTreeSet::from(["fusion-core"]),
            "glue-eval" => BTreeSet::from(["fusion-core", "t5-model"]),
            "pipeline" => BTreeSet::from(["fusion-core", "t5-model", "glue-eval"]),
            "xtask" => {
                let own = ["fusion-core", "t5-model", "glue-eval", "pipeline", "workspace-hack"];
                &BTreeSet::from(own) | &backends
            }
            backend if backends.contains(backend) => BTreeSet::from(["fusion-core", "t5-model"]),
            other => panic!("{other} has no place in the workspace's order"),
        };
        assert!(own.is_subset(&allowed), "{name} depends on {own:?}, but may on {allowed:?}");

        let only_here = |what: &[&str], here: bool| {
            let found: Vec<&&str> = what.iter().filter(|what| dependencies.contains(**what)).collect();
            assert!(here || found.is_empty(), "{name} depends on {found:?}");
        };
        only_here(&["ctrlc", "indicatif"], name == "xtask");
        only_here(&["anyhow"], ["pipeline", "xtask"].contains(&name.as_str()));
        let is_framework = |other: &&String| {
            let frameworks = ["burn", "tch", "dfdx", "candle", "ndarray", "cubecl"];
            frameworks
                .iter()
                .any(|framework| other.as_str() == *framework || other.starts_with(&format!("{framework}-")))
        };
        let frameworks: Vec<&String> = dependencies.iter().filter(is_framework).collect();
        assert!(
            backends.contains(name.as_str()) || frameworks.is_empty(),
            "{name} depends on {frameworks:?}"
        );
    }
}

/// The libraries' options become command-line arguments only in a program that asks for it.
#[test]
fn only_the_program_needs_clap() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    for package in metadata.packages.iter().filter(|package| package.name != "xtask") {
        let name = &package.name;
        for dependency in &package.dependencies {
            assert!(dependency.optional || dependency.name != "clap", "{name} needs clap");
            assert!(!dependency.features.contains(&"clap".into()), "{name} needs {}'s clap", dependency.name);
        }
        for (feature, enables) in package.features.iter().filter(|(feature, _)| *feature != "clap") {
            assert!(!enables.iter().any(|enabled| enabled.contains("clap")), "{name}'s {feature} needs clap");
        }
        // All builds in the workspace have the feature, so no compiler would notice.
        for file in sources(&package.manifest_path.with_file_name("src").into_std_path_buf()) {
            let text = fs::read_to_string(&file).expect("a source");
            let lines: Vec<&str> = text.lines().collect();
            let guarded =
                |at: usize| lines[at.saturating_sub(1)..=at].iter().any(|line| line.contains(GUARD));
            let bare = (0..lines.len()).find(|&at| lines[at].contains("clap::") && !guarded(at));
            assert_eq!(bare, None, "{}", file.display());
        }
    }
}

const GUARD: &str = "feature = \"clap\"";

/// Recipes are run by a library: its caller shows progress, chooses the backend and ends the process.
#[test]
fn the_pipeline_knows_no_terminal_and_no_backend() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipeline/src");
    let mut words = ["clap::", "indicatif", "ctrlc", "process::exit", "print!", "println!", "std::io::std"]
        .map(str::to_owned)
        .to_vec();
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let names = metadata.packages.iter().map(|package| package.name.replace('-', "_"));
    words.extend(names.filter(|name| name.starts_with("backend_")));
    for file in sources(&root) {
        let text = fs::read_to_string(&file).expect("a source");
        let found: Vec<&String> = words.iter().filter(|word| text.contains(word.as_str())).collect();
        assert!(found.is_empty(), "{} names {found:?}", file.display());
    }
}

/// The Rust files in a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

#[test]
fn one_program() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let programs =
        metadata.packages.iter().flat_map(|package| &package.targets).filter(|target| target.is_bin());
    assert_eq!(programs.map(|target| target.name.as_str()).collect::<Vec<_>>(), ["deep-fusion"]);
}
