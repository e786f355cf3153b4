//! Runs the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

/// The program's file.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_deep-fusion");

/// The outcome of running the program.
pub struct Called {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `cargo xtask` in a directory.
pub fn call_in(directory: &Path, arguments: &[&str]) -> Called {
    call_with(directory, arguments, &[])
}

/// The same with environment variables.
pub fn call_with(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Called {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(directory).envs(environment.iter().copied());
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Called { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

pub fn call(arguments: &[&str]) -> Called {
    call_in(Path::new("."), arguments)
}

impl Called {
    /// The standard output of a successful run.
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// The message of a failed run.
    pub fn failure(self) -> String {
        assert_eq!(self.code, Some(1), "{}\n{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// A directory with these files.
pub fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    directory
}

/// The small T5s made by transformers.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../t5-model/src/conformance/goldens").join(name)
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
