//! `bench train`, with scripts in place of a Python with transformers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{Called, PROGRAM, call, text};
use crate::scripts::{backends, python};

/// A worker that answers, with 2 steps per turn.
const SOUND: &str = r#"
echo '{"ready": true, "parameters": 8432}'
while read -r word steps; do
    case $word in
        step) echo '{"ms": [7.0, 9.0]}' ;;
        quit) echo '{"loss": 1.5, "peak_rss_bytes": 1000000}' && exit ;;
    esac
done
"#;
/// Its first lines.
const READY: &str = r#"
echo '{"ready": true, "parameters": 8432}'
read -r request
"#;

const TINY: [&str; 8] = ["bench", "train", "--model", "tiny", "--rounds", "3", "--steps", "2"];

fn bench(worker: &str, more: &[&str]) -> Called {
    let python = python(worker);
    call(&[&TINY[..], &["--python", text(&python.path().join("python"))], more].concat())
}

#[test]
fn every_backend_has_its_row() {
    let transformers = ["transformers", "transformers bf16", "transformers sdpa", "transformers bf16 sdpa"]
        .map(String::from);
    let names = [backends(), transformers.to_vec()].concat();
    let table = bench(SOUND, &[]).success();
    for name in &names {
        let row = table.lines().find(|line| line.starts_with(&format!("{name}  ")));
        assert_eq!(row.map(|row| row.contains("failed")), Some(false), "{name}:\n{table}");
    }

    let report: Value = serde_json::from_str(&bench(SOUND, &["--json"]).success()).expect("JSON");
    let contestants = report["contestants"].as_array().expect("contestants");
    assert_eq!(contestants.iter().map(|one| one["name"].as_str()).collect::<Option<Vec<_>>>(), {
        Some(names.iter().map(String::as_str).collect())
    });
    for one in contestants {
        for figure in
            ["median_ms", "tokens_per_second", "ratio", "flops_per_second", "share_of_product", "loss"]
        {
            assert!(one[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {one}");
        }
        let rounds = one["rounds"].as_array().expect("rounds");
        assert_eq!((rounds.len(), rounds[2].as_array().map(Vec::len)), (3, Some(2)), "{one}");
        assert_eq!(one["error"], Value::Null);
    }

    let transformers = &contestants[names.len() - 4];
    assert_eq!(report["reference"], "transformers");
    assert_eq!(transformers["ratio"], 1.0);
    assert_eq!([&transformers["quartiles_ms"][0], &transformers["quartiles_ms"][1]], [7.0, 9.0]);
    assert_eq!(transformers["tokens_per_second"], 2.0 * (8.0 + 4.0) / 8e-3);
    let flops = report["step_flops"].as_f64().map(|flops| flops / 8e-3);
    assert_eq!(transformers["flops_per_second"].as_f64(), flops);
    assert_eq!(transformers["peak_memory"], 1_000_000);
}

#[test]
fn options_reach_workers() {
    let python = python(&format!("echo \"$*\" >>\"$0.calls\"\n{SOUND}"));
    let path = python.path().join("python");
    let named = ["--only", "burn cpu", "--only", "transformers", "--only", "transformers bf16 sdpa"];
    let others =
        ["--batch", "5", "--device", "cpu", "--reference", "burn cpu", "--json", "--python", text(&path)];
    let report = call(&[&TINY[..], &named, &others].concat()).success();
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["batch"], json!([5, 8, 4]));
    assert_eq!(report["reference"], "burn cpu");
    let contestants = report["contestants"].as_array().expect("contestants");
    assert_eq!(contestants[0]["ratio"], 1.0, "{report}");
    assert_eq!(contestants[1]["tokens_per_second"], 5.0 * (8.0 + 4.0) / 8e-3);

    let calls = fs::read_to_string(path.with_extension("calls")).expect("calls");
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(calls.len(), 2, "{calls:?}");
    for (call, variant) in calls.iter().zip(["bench_transformers.py --device", " --bf16 --sdpa --device"]) {
        assert!(call.contains(variant) && call.contains(" --batch 5 "), "{call}");
    }
}

#[test]
fn a_worker_that_fails_is_out_alone() {
    let backend = backends().remove(0);
    for (worker, reason) in [
        (
            "echo 'lots of text' >&2; echo 'no such operator' >&2; exit 3",
            "ended with exit status: 3: no such operator",
        ),
        (
            "echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total' >&2; exit 1",
            "failed: CUDA out of memory. Tried to allocate 2.00 GiB\n",
        ),
        (&format!("{READY} kill -9 $$"), "ended with signal: 9 (SIGKILL)"),
        (&format!("{READY} echo Segmentation"), "it said \"Segmentation\", which is no answer"),
        (&format!("{READY} head -c 3000000 /dev/zero"), "which is no answer"),
        (&format!("{READY} echo '{{\"error\": \"out of memory\"}}'"), "out of memory"),
        (&format!("{READY} echo '{{\"ms\": [5.0]}}'"), "its times of 2 steps are [5.0]"),
        (&format!("{READY} echo '{{\"ms\": [5.0, -1.0]}}'"), "its times of 2 steps are [5.0, -1.0]"),
        ("echo '{\"ready\": true, \"parameters\": 7}'; cat", "it has 7 weights, not 8432"),
        ("exec >&-; sleep 100", "ended with signal: 9 (SIGKILL)"),
    ] {
        let called = bench(worker, &["--only", &backend, "--only", "transformers"]);
        let mut rows = called.stdout.split_inclusive('\n');
        let row = rows.find(|line| line.starts_with("transformers  failed: "));
        assert!(row.is_some_and(|row| row.contains(reason)), "{worker}:\n{}", called.stdout);
        let other = called.stdout.lines().find(|line| line.starts_with(&backend)).expect("a row");
        assert!(!other.contains("failed"), "{other}");
        assert!(called.failure().ends_with("error: 1 of the contestants failed\n"));
    }
}

#[test]
fn what_cannot_take_part() {
    let refused = call(&["bench", "train", "--only", "abacus"]).failure();
    assert!(refused.contains("there is no contestant \"abacus\"; there are: "), "{refused}");
    for name in backends().iter().chain(&["transformers".into()]) {
        assert!(refused.contains(name), "{name}: {refused}");
    }
    let refused = call(&["bench", "train", "--device", "abacus:0"]).failure();
    assert!(refused.contains("there is no contestant on \"abacus:0\"; there are some on: cpu"), "{refused}");
    let reference = ["--only", "burn cpu", "--reference", "transformers"];
    let refused = call(&[&TINY[..], &reference].concat()).failure();
    assert!(refused.contains("there is no contestant \"transformers\"; there are: burn cpu"), "{refused}");
    let without = python("");
    let path = without.path().join("python");
    fs::write(&path, "#!/bin/sh\necho 'it lacks torch' >&2\nexit 1\n").expect("a file");
    let refused = call(&[&TINY[..], &["--python", text(&path)]].concat()).failure();
    assert!(refused.contains("cannot run transformers\n  because: it lacks torch"), "{refused}");
    let refused = call(&[&TINY[..], &["--python", "/no/such/python"]].concat()).failure();
    assert!(refused.contains("because: cannot start it"), "{refused}");
}

#[test]
fn an_interrupted_bench_leaves_no_worker() {
    let python = python("echo $$ > \"$0.id\"; exec sleep 1000");
    let path = python.path().join("python");
    let mut command = Command::new(PROGRAM);
    command.args(TINY).args(["--only", "transformers", "--python"]).arg(&path);
    let mut bench = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let worker = first_line(&path.with_extension("id"));
    assert!(signal("0", &worker), "the worker runs");
    assert!(signal("INT", &bench.id().to_string()), "the bench runs");
    assert_eq!(bench.wait().expect("the bench's end").code(), Some(130));
    assert!(!signal("0", &worker), "the worker has ended");
}

/// Waits for another process to write a line to a file.
fn first_line(path: &Path) -> String {
    let start = Instant::now();
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => assert!(start.elapsed() < Duration::from_secs(60), "{}: nothing", path.display()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal; returns whether the process existed.
fn signal(name: &str, process: &str) -> bool {
    let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\" 2>/dev/null", name, process]).status();
    status.expect("a shell").success()
}
