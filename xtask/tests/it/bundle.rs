//! A bundle, and how it finds libtorch.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::program::{self, Called, call, directory, text};

const LAUNCHER: &str = include_str!("../../src/dev/bundle/deep-fusion");
/// Stands in for the program; prints the libraries that it was started with.
const PROGRAM: &str = r#"#!/bin/sh
echo "$LD_LIBRARY_PATH, once ${DEEP_FUSION_CALLERS_LD_LIBRARY_PATH-unset}, with $*"
exit 7
"#;
/// A Python with PyTorch.
const PYTHON: &str = "#!/bin/sh\necho \"${0%/*}/site-packages/torch\"\n";

/// Runs a file with these environment variables only.
fn start(file: &Path, arguments: &[&str], environment: &[(&str, &Path)]) -> Called {
    let mut command = Command::new(file);
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").envs(environment.iter().copied());
    let Output { status, stdout, stderr } = command.output().expect("the launcher starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Called { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// A folder with these files; scripts are executable.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = directory(files);
    for (name, _) in files.iter().filter(|(_, text)| text.starts_with("#!")) {
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path().join(name), executable).expect("a permission");
    }
    folder
}

/// A bundle with a stand-in for the program, and these files.
fn bundle(files: &[(&str, &str)]) -> TempDir {
    let own = [
        ("deep-fusion", LAUNCHER),
        ("bundle.toml", "version = \"0.1.0\"\ncpu = \"generic\"\n"),
        ("bin/deep-fusion", PROGRAM),
        // Comes before the machine's own on the path.
        ("tools/python3", "#!/bin/sh\nexit 1\n"),
    ];
    folder(&[&own[..], files].concat())
}

/// Where a bundle finds libtorch, relative to the bundle, or its message if it does not.
fn libraries(bundle: &TempDir, environment: &[(&str, &Path)]) -> String {
    let tools = format!("{}:/usr/bin:/bin", bundle.path().join("tools").display());
    let environment = [&[("PATH", Path::new(&tools))], environment].concat();
    let called = start(&bundle.path().join("deep-fusion"), &["a word", "--flag"], &environment);
    let root = fs::canonicalize(bundle.path()).expect("a path");
    match called.code {
        Some(7) => called.stdout,
        _ => called.failure(),
    }
    .replace(text(&root), "HERE")
    .replace(text(bundle.path()), "HERE")
}

const TORCH: &str = "lib/libtorch_cpu.so";

#[test]
fn libtorch_is_what_the_environment_names_or_lies_beside_it_or_is_pythons() {
    let beside = bundle(&[
        (&format!("libtorch/{TORCH}"), ""),
        ("libtorch/build-version", "2.11.0+cu130\n"),
        (&format!("named/torch/{TORCH}"), ""),
        ("named/torch/version.py", "from typing import Optional\n__version__ = '2.11.1'\ncuda = '13.0'\n"),
        ("named/nvidia/cu13/lib/libnvrtc.so.13", ""),
        ("named/nvidia/cudnn/lib/libcudnn.so.9", ""),
        ("named/nvidia/empty/file", ""),
    ]);
    let named = beside.path().join("named/torch");
    assert_eq!(
        libraries(&beside, &[("LIBTORCH", &named)]),
        "HERE/named/torch/lib:HERE/named/nvidia/cu13/lib:HERE/named/nvidia/cudnn/lib, once , with a word --flag\n"
    );
    assert_eq!(libraries(&beside, &[]), "HERE/libtorch/lib, once , with a word --flag\n");
    let other = Path::new("/other:/libraries");
    assert_eq!(
        libraries(&beside, &[("LD_LIBRARY_PATH", other)]),
        "HERE/libtorch/lib:/other:/libraries, once /other:/libraries, with a word --flag\n"
    );

    // The layout in which pip installs PyTorch into a folder.
    let installed =
        bundle(&[(&format!("libtorch/torch/{TORCH}"), ""), ("libtorch/nvidia/cu13/lib/libnvrtc.so.13", "")]);
    assert_eq!(
        libraries(&installed, &[]),
        "HERE/libtorch/torch/lib:HERE/libtorch/nvidia/cu13/lib, once , with a word --flag\n"
    );

    let pythons = bundle(&[
        ("tools/python3", PYTHON),
        (&format!("tools/site-packages/torch/{TORCH}"), ""),
        ("other/python", PYTHON),
        (&format!("other/site-packages/torch/{TORCH}"), ""),
    ]);
    assert!(libraries(&pythons, &[]).starts_with("HERE/tools/site-packages/torch/lib, "));
    let python = pythons.path().join("other/python");
    assert!(libraries(&pythons, &[("PYTHON", &python)]).starts_with("HERE/other/site-packages/torch/lib, "));

    // It may be called by another name.
    let link = pythons.path().join("tools/fusion");
    symlink("../deep-fusion", &link).expect("a link");
    assert_eq!(start(&link, &[], &[("PYTHON", &python)]).code, Some(7));
}

#[test]
fn what_is_no_libtorch_says_which_would_be_one() {
    let empty = bundle(&[]);
    insta::assert_snapshot!(libraries(&empty, &[]), @r"
    error: there is no libtorch: python3 has no PyTorch either
    Deep Fusion needs libtorch 2.11. It takes the first of these:
      - what LIBTORCH names: a folder of libtorch, or the folder `torch` in a Python's site-packages
      - a folder `libtorch` in HERE
      - PyTorch of the Python on the path (PYTHON names another one)
    ");
    let named = libraries(&empty, &[("LIBTORCH", &empty.path().join("bin"))]);
    insta::assert_snapshot!(named.lines().next().unwrap_or_default(), @"error: HERE/bin, which LIBTORCH names, is no libtorch: it has no lib/libtorch_cpu.so");
    let old = bundle(&[
        ("tools/python3", PYTHON),
        (&format!("tools/site-packages/torch/{TORCH}"), ""),
        ("tools/site-packages/torch/version.py", "__version__ = '2.10.0+cu128'\n"),
    ]);
    insta::assert_snapshot!(libraries(&old, &[]).lines().next().unwrap_or_default(), @"error: HERE/tools/site-packages/torch, of python3, is version 2.10.0+cu128");
    let new = bundle(&[(&format!("libtorch/{TORCH}"), ""), ("libtorch/build-version", "2.111.0\n")]);
    insta::assert_snapshot!(libraries(&new, &[]).lines().next().unwrap_or_default(), @"error: HERE/libtorch, beside this program, is version 2.111.0");
    for error in [named, libraries(&old, &[]), libraries(&new, &[])] {
        assert!(error.ends_with(libraries(&empty, &[]).split_once('\n').expect("lines").1), "{error}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn an_old_processor_is_told_so() {
    let bundle = bundle(&[
        (&format!("libtorch/{TORCH}"), ""),
        ("bundle.toml", "version = \"0.1.0\"\ncpu = \"x86-64-v9\"\n"),
    ]);
    let refused = libraries(&bundle, &[]);
    assert!(refused.contains("for processors of the level x86-64-v9, and this one is not"), "{refused}");
}

/// The real program, but without libtorch where it is built without.
#[test]
#[cfg(feature = "burn")]
fn a_bundle_needs_nothing_outside() {
    let folder = directory(&[(TORCH, "")]);
    let archive = folder.path().join("deep-fusion.tar.gz");
    let program = program::PROGRAM;
    let pack = || call(&["bundle", "--program", program, "--cpu", "generic", "--output", text(&archive)]);
    pack().success();
    let bytes = fs::read(&archive).expect("an archive");
    assert!(bytes.len() < 50_000_000, "{} bytes", bytes.len());
    pack().success();
    assert!(bytes == fs::read(&archive).expect("an archive"), "the same again makes other bytes");
    let unpack = Command::new("tar").arg("-xzf").arg(&archive).current_dir(folder.path()).status();
    assert!(unpack.expect("tar starts").success());

    let bundle = folder.path().join("deep-fusion");
    let linked = std::env::var_os("LIBTORCH").filter(|_| cfg!(feature = "tch"));
    let libtorch = linked.as_ref().map_or(folder.path(), |libtorch| Path::new(libtorch));
    let start = |arguments: &[&str]| start(&bundle.join("deep-fusion"), arguments, &[("LIBTORCH", libtorch)]);
    start(&["conformance"]).success();
    start(&["run", text(&bundle.join("recipes/quickstart.toml")), "--dry-run"]).success();
    assert!(!start(&["backends"]).success().contains("builds it"));
    let check = Command::new(bundle.join("check-cuda")).arg("--help").output().expect("the check starts");
    assert!(check.status.success(), "{check:?}");

    // Nothing else was read.
    let reference = bundle.join("t5-model/src/conformance/goldens/operations.safetensors");
    fs::remove_file(&reference).expect("a reference");
    let refused = start(&["conformance"]).failure();
    assert!(refused.contains(text(&reference)), "{refused}");
    for (command, what) in
        [(&["setup", "tch"][..], "`setup`"), (&["ci"], "`ci`"), (&["bundle", "--output", "b"], "`bundle`")]
    {
        assert_eq!(
            start(command).failure(),
            format!("error: this is a bundle; {what} needs the source tree\n")
        );
    }
    #[cfg(not(feature = "wgpu"))]
    insta::assert_snapshot!(start(&["conformance", "--device", "wgpu:0"]).failure(), @"error: this bundle was built without wgpu; `cargo xtask bundle --features wgpu` makes one with it");
}
