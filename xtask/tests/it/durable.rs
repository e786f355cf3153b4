//! A checkpoint being replaced is whole at every moment, whatever happens to the processes replacing it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fusion_core::checkpoint::Checkpoint;
use fusion_core::lineage::Lineage;

use crate::program::{PROGRAM, call, directory, golden, text};

/// Starts replacing a checkpoint in `output`.
fn fuse(output: &Path, options: &[&str]) -> Child {
    let parents = ["fusion/untied/parent_0", "fusion/untied/parent_1"].map(golden);
    let mut command = Command::new(PROGRAM);
    command.arg("fuse").args(parents).arg("--output").arg(output).arg("--overwrite").args(options);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

/// The hash of a checkpoint's weights, after checking that its lineage describes them.
fn whole(checkpoint: &Path) -> String {
    let hash =
        Checkpoint::open(checkpoint).and_then(|checkpoint| checkpoint.blake3()).expect("whole weights");
    let lineage = Lineage::read(checkpoint).expect("readable").expect("a lineage");
    assert_eq!(lineage.blake3.as_ref(), Some(&hash), "weights and lineage belong together");
    hash
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |name: String| (name.clone(), fs::read(directory.join(name)).expect("a file"));
    entries(directory).into_iter().map(read).collect()
}

const ONE: [&str; 2] = ["--norm", "property"];
const OTHER: [&str; 4] = ["--cross", "normal:0.1", "--dtype", "bf16"];

#[test]
fn killed_at_any_moment() {
    let folder = directory(&[]);
    let child = folder.path().join("child");
    assert!(fuse(&child, &ONE).wait().expect("ended").success());
    let first = whole(&child);
    let mut hashes = vec![first.clone()];
    for delay in 0..24 {
        let mut process = fuse(&child, if delay % 2 == 0 { &OTHER[..] } else { &ONE });
        std::thread::sleep(Duration::from_micros(700 * delay));
        process.kill().expect("killed");
        process.wait().expect("ended");
        hashes.push(whole(&child));
    }
    assert!(fuse(&child, &ONE).wait().expect("ended").success());
    assert_eq!(whole(&child), first);
    assert_eq!(entries(folder.path()), ["child"], "what killed processes left is removed");
    hashes.sort_unstable();
    hashes.dedup();
    assert!(hashes.len() <= 2, "one or the other model, nothing else");
}

#[test]
fn two_at_once() {
    let folder = directory(&[]);
    let child = folder.path().join("child");
    let expected = [&ONE[..], &OTHER].map(|options| {
        assert!(fuse(&child, options).wait().expect("ended").success());
        whole(&child)
    });
    for _ in 0..8 {
        let ended = [&ONE[..], &OTHER].map(|options| fuse(&child, options));
        let ended = ended.map(|mut process| process.wait().expect("ended").success());
        assert!(ended.contains(&true), "one of them at least");
        assert!(expected.contains(&whole(&child)));
    }
    assert_eq!(entries(folder.path()), ["child"]);
}

/// A limit on file sizes makes a reservation of space fail as a full disk does.
#[cfg(unix)]
#[test]
fn without_space() {
    let folder = directory(&[]);
    let child = folder.path().join("child");
    assert!(fuse(&child, &ONE).wait().expect("ended").success());
    let before = contents(&child);
    let parents = ["fusion/untied/parent_0", "fusion/untied/parent_1"].map(golden);
    // 64 blocks of 512 or 1024 bytes: less than the weights, more than config.json.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", PROGRAM, "fuse"]).args(&parents);
    let output = command.args(["--overwrite", "--output"]).arg(&child).output().expect("the program starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("the fused model was not written to"), "{error}");
    assert_eq!(contents(&child), before);
    assert_eq!(entries(folder.path()), ["child"]);
    let again = call(&["inspect", text(&child)]).success();
    assert!(again.contains("not finite     none"), "{again}");
}
