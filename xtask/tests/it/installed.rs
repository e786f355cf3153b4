//! The program outside the checkout, under its own name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::program::{Called, PROGRAM, directory, text};

/// A copy of the program where it was not built, as `cargo install` makes it.
fn installed() -> (TempDir, PathBuf) {
    let folder = directory(&[]);
    let program = folder.path().join("deep-fusion");
    if fs::hard_link(PROGRAM, &program).is_err() {
        fs::copy(PROGRAM, &program).expect("a copy");
    }
    (folder, program)
}

fn call(program: &Path, arguments: &[&str]) -> Called {
    let output = Command::new(program).args(arguments).output().expect("the program starts");
    let Output { status, stdout, stderr } = output;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Called { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

#[test]
fn it_has_its_own_name() {
    let (_folder, program) = installed();
    let call = |arguments: &[&str]| call(&program, arguments);
    assert_eq!(call(&["-V"]).success(), format!("deep-fusion {}\n", env!("CARGO_PKG_VERSION")));
    for arguments in [&["--help"][..], &["help", "fuse"], &["generate", "-h"], &["data", "sample", "--help"]]
    {
        let help = call(arguments).success();
        assert!(help.contains("Usage: deep-fusion ") && !help.contains("cargo xtask"), "{help}");
    }
    let wrong = call(&["fuse", "a"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("Usage: deep-fusion fuse "), "{}", wrong.stderr);
}

#[test]
fn what_needs_the_checkout_says_so() {
    let (folder, program) = installed();
    for arguments in [&["ci"][..], &["setup", "tch"], &["bundle", "--output", "b.tar.gz"]] {
        let refused = call(&program, arguments).failure();
        assert!(refused.contains("was installed") && refused.contains("needs the source tree"), "{refused}");
    }
    let generate =
        ["generate", "--model", text(folder.path()), "--backend", "burn", "--device", "cuda:0", "x"];
    if cfg!(not(feature = "cuda")) {
        let refused = call(&program, &generate).failure();
        assert!(refused.contains("cargo install --locked --path xtask --features "), "{refused}");
        let listed = call(&program, &["backends"]).success();
        assert!(listed.contains("in a checkout installs it"), "{listed}");
    }
}

#[test]
fn completions_and_man_pages() {
    let (folder, program) = installed();
    for (shell, expected) in
        [("bash", "--length-penalty"), ("zsh", "#compdef deep-fusion"), ("fish", "deep-fusion")]
    {
        let script = call(&program, &["completions", shell]).success();
        assert!(script.contains(expected), "{script}");
    }
    // A script that bash understands.
    let script = call(&program, &["completions", "bash"]).success();
    let path = folder.path().join("completions");
    fs::write(&path, script).expect("a file");
    let checked = Command::new("bash").arg("-n").arg(&path).status();
    assert!(checked.is_ok_and(|status| status.success()));

    let pages = folder.path().join("man/man1");
    call(&program, &["man", "--output", text(&pages)]).success();
    let read = |name: &str| fs::read_to_string(pages.join(name)).expect("a page");
    assert!(read("deep-fusion.1").contains("deep\\-fusion\\-fuse(1)"), "{}", read("deep-fusion.1"));
    assert!(
        read("deep-fusion-data-sample.1").contains("held\\-out"),
        "{}",
        read("deep-fusion-data-sample.1")
    );
    let all = fs::read_dir(&pages).expect("pages").count();
    assert!(all > 25, "{all} pages");
}
