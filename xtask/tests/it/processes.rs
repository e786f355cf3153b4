//! Processes that train together, as a user starts them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Called, PROGRAM, call_in, call_with, directory};

const TRAINING: &str = "pretrain --text builtin:webster --held-out-every 20 --max-documents 400 --input-length 32 \
     --d-model 16 --num-heads 2 --d-kv 8 --d-ff 32 --num-layers 1 --batch-size 6 --dropout 0.1 \
     --learning-rate 0.02 --warm-up 2 --evaluate-every 50 --evaluation-batches 2 --checkpoint-every 10 \
     --log-every 1 --threads 1";

/// A directory with a vocabulary.
fn folder() -> TempDir {
    let folder = directory(&[]);
    let train = "tokenizer train --text builtin:webster --vocabulary 400 --max-documents 400 --output words";
    call_in(folder.path(), &train.split_whitespace().collect::<Vec<_>>()).success();
    folder
}

/// The words of a training with so many steps.
fn training<'a>(steps: &'a str, output: &'a str) -> Vec<&'a str> {
    training_within(steps, output, "90")
}

/// The same, whose processes wait for each other for so many seconds.
fn training_within<'a>(steps: &'a str, output: &'a str, seconds: &'a str) -> Vec<&'a str> {
    let own = ["--tokenizer", "words", "--steps", steps, "--output", output, "--group-timeout", seconds];
    TRAINING.split_whitespace().chain(own).collect()
}

fn launched<'a>(processes: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    ["launch", "--processes", processes, "--"].into_iter().chain(command.iter().copied()).collect()
}

/// The losses of a run, of updates and of evaluations.
fn losses(run: &Path) -> Vec<f64> {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["loss"].as_f64();
    lines.lines().map(|text| line(text).expect("a loss")).collect()
}

fn assert_alike(run: &Path, expected: &Path) {
    let (found, expected) = (losses(run), losses(expected));
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!((found / expected - 1.0).abs() < 1e-5, "line {at}: {found} is not {expected}");
    }
}

#[test]
fn two_and_three_train_as_one_on_every_backend() {
    let folder = folder();
    let place = |name: &str| folder.path().join(name);
    call_in(folder.path(), &training("12", "one")).success();
    let sharded: &[&str] = &["--shard-optimizer"];
    for (processes, backend, options) in [
        ("2", "burn", &[][..]),
        ("3", "burn", sharded),
        ("2", "dfdx", &[]),
        ("2", "tch", &[]),
        ("3", "tch", sharded),
    ] {
        let output = format!("{processes}-{backend}");
        let mut command = training("12", &output);
        command.extend(["--backend", backend]);
        command.extend(options);
        let called = call_in(folder.path(), &launched(processes, &command));
        let stdout = called.success();
        assert_eq!(stdout.lines().count(), 1, "one of them speaks: {stdout}");
        let metrics = fs::read_to_string(place(&output).join("metrics.jsonl")).expect("metrics");
        let update = metrics.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).nth(1);
        let update = update.expect("an update");
        assert!(update["exchanged_bytes"].as_f64().is_some_and(|bytes| bytes > 30_000.0), "{update}");
        let share = update["communication_share"].as_f64().expect("a share");
        assert!((0.0..1.0).contains(&share), "{update}");
        assert_alike(&place(&output), &place("one"));
    }
}

/// Gradients in bf16 are less exact, and the run is another.
#[test]
fn gradients_can_be_added_up_in_bf16() {
    let folder = folder();
    let place = |name: &str| folder.path().join(name);
    call_in(folder.path(), &training("12", "one")).success();
    for backend in ["burn", "tch"] {
        let command = [training("12", backend).as_slice(), &["--backend", backend]].concat();
        let half = [command.as_slice(), &["--reduce-precision", "bf16"]].concat();
        call_in(folder.path(), &launched("2", &half)).success();
        let (found, expected) = (losses(&place(backend)), losses(&place("one")));
        let worst = found.iter().zip(&expected).map(|(found, expected)| (found / expected - 1.0).abs());
        let worst = worst.fold(0.0, f64::max);
        assert!((1e-7..1e-2).contains(&worst), "{backend}: {worst}");
        let refused = call_in(folder.path(), &launched("2", &command)).failure();
        assert!(refused.contains("was trained with another `reduce_precision`"), "{refused}");
    }
}

/// Whoever launches a process says which it is.
#[test]
fn others_launch_as_well() {
    let folder = folder();
    let place = |name: &str| folder.path().join(name);
    call_in(folder.path(), &training("6", "one")).success();
    let launchers: [&[[&str; 2]]; 2] = [
        &[
            ["SLURM_PROCID", "0"],
            ["SLURM_NTASKS", "2"],
            ["SLURM_LOCALID", "0"],
            ["SLURM_STEP_ID", "0"],
            ["SLURM_JOB_ID", "4711"],
            ["SLURM_NODELIST", "localhost"],
        ],
        &[
            ["OMPI_COMM_WORLD_RANK", "0"],
            ["OMPI_COMM_WORLD_SIZE", "2"],
            ["OMPI_COMM_WORLD_LOCAL_RANK", "0"],
            ["OMPI_COMM_WORLD_LOCAL_SIZE", "2"],
            ["MASTER_PORT", "24712"],
        ],
    ];
    for (number, variables) in launchers.iter().enumerate() {
        let output = format!("launched-{number}");
        let start = |rank: &'static str| {
            let of_rank = |[name, value]: &[&'static str; 2]| {
                let is_rank = name.ends_with("PROCID") || name.ends_with("RANK") || name.ends_with("LOCALID");
                (*name, if is_rank { rank } else { value })
            };
            let mut command = Command::new(PROGRAM);
            command.args(training("6", &output)).envs(variables.iter().map(of_rank));
            command.current_dir(folder.path()).stderr(Stdio::piped()).stdout(Stdio::null());
            command.spawn().expect("the program starts")
        };
        for process in [start("0"), start("1")] {
            let ended = process.wait_with_output().expect("it ends");
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        }
        assert_alike(&place(&output), &place("one"));
    }
}

/// Processes of a long training, and those that they are.
struct Long {
    launcher: Child,
    ranks: Vec<u32>,
}

impl Long {
    /// Waits until the training has reached its tenth step.
    fn begin(folder: &Path, options: &[&str], training: &[&str]) -> Long {
        let mut command = Command::new(PROGRAM);
        command.args(["launch", "--processes", "3"]).args(options).arg("--").args(training);
        command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut launcher = command.spawn().expect("the program starts");
        while !folder.join("run/checkpoints/step-00000010").exists() {
            let ended = launcher.try_wait().expect("the process's status");
            assert_eq!(ended, None, "it ends before it is interrupted");
            std::thread::sleep(Duration::from_millis(5));
        }
        Long { ranks: children(launcher.id()), launcher }
    }

    /// Sends a signal to a rank.
    fn signal(&self, rank: usize, signal: &str) {
        let pid = self.ranks[rank].to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill starts").success());
    }

    fn end(self) -> Called {
        let ended = self.launcher.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        Called { code: ended.status.code(), stdout: String::new(), stderr }
    }
}

/// The processes that a process has started, in their order.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("processes");
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |process: &u32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        status
            .lines()
            .any(|line| line.strip_prefix("PPid:").is_some_and(|id| id.trim() == parent.to_string()))
    };
    let mut children: Vec<u32> = numbers.filter(is_child).collect();
    children.sort_unstable();
    children
}

#[test]
fn a_rank_that_is_killed_ends_all_and_another_number_goes_on() {
    let folder = folder();
    call_in(folder.path(), &training("400", "one")).success();
    let long = Long::begin(folder.path(), &[], &training("400", "run"));
    long.signal(1, "-KILL");
    let (since, said) = (Instant::now(), long.end().failure());
    assert!(since.elapsed() < Duration::from_secs(60), "the others end soon");
    assert!(said.contains("rank 0: error: ") && said.contains("rank 1 (on host "), "{said}");
    assert!(!said.contains("rank 2 (on host "), "only the one that was killed is to blame: {said}");
    assert!(said.contains("has ended or hangs") && said.contains("the newest checkpoint is run/"), "{said}");

    call_in(folder.path(), &launched("2", &training("400", "run"))).success();
    assert_alike(&folder.path().join("run"), &folder.path().join("one"));
}

#[test]
fn a_rank_that_is_killed_can_be_started_again() {
    let folder = folder();
    call_in(folder.path(), &training("400", "one")).success();
    let long = Long::begin(folder.path(), &["--max-restarts", "1"], &training("400", "run"));
    long.signal(2, "-KILL");
    let called = long.end();
    assert!(called.stderr.contains("starting again (1 of 1)"), "{}", called.stderr);
    called.success();
    assert_alike(&folder.path().join("run"), &folder.path().join("one"));
}

/// One that is only slow is waited for.
#[test]
fn a_rank_that_stalls_is_named_after_the_timeout() {
    let folder = folder();
    let long = Long::begin(folder.path(), &[], &training("100", "run"));
    long.signal(1, "-STOP");
    std::thread::sleep(Duration::from_secs(2));
    long.signal(1, "-CONT");
    long.end().success();

    fs::remove_dir_all(folder.path().join("run")).expect("the run is removed");
    let long = Long::begin(folder.path(), &[], &training_within("100000", "run", "8"));
    long.signal(1, "-STOP");
    let (since, said) = (Instant::now(), long.end().failure());
    assert!(since.elapsed() < Duration::from_secs(60), "{said}");
    assert!(said.contains("rank 0: error: ") && said.contains("rank 1 (on host "), "{said}");
}

/// A scheduler tells only the process that it has started.
#[test]
fn the_launcher_passes_on_that_it_is_to_stop() {
    let folder = folder();
    let long = Long::begin(folder.path(), &[], &training("100000", "run"));
    let launcher = long.launcher.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &launcher]).status().expect("kill starts").success());
    let called = long.end();
    assert_eq!(called.code, Some(130), "{}", called.stderr);
    assert!(called.stderr.contains("is saved in run/checkpoints/step-"), "{}", called.stderr);
}

#[test]
fn a_port_at_which_nobody_is_is_said() {
    let folder = folder();
    let rank = |rank: &'static str, timeout: &'static str| {
        let variables =
            [("RANK", rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "24713")];
        call_with(folder.path(), &training_within("6", "run", timeout), &variables).failure()
    };
    let said = rank("1", "2");
    assert!(said.contains("rank 1 cannot reach 127.0.0.1:24713, where all ranks meet"), "{said}");
    let said = rank("0", "2");
    assert!(said.contains("rank 1 (it has never come)"), "{said}");
    assert!(!folder.path().join("run").exists());
}

#[test]
fn a_whole_recipe_runs_in_two_processes() {
    const RECIPE: &str = r#"
[data]
text = "builtin:webster"
held_out_every = 20
tokenizer = "words"
input_length = 32
max_documents = 400

[models.small]
d_model = 16
num_heads = 2
d_kv = 8
d_ff = 32
num_layers = 1

[pretraining]
steps = 6
batch_size = 4
evaluation_batches = 1

[stages.words]
kind = "tokenizer"
vocabulary = 400

[stages.small]
kind = "pretrain"
model = "small"

[stages.fused]
kind = "fuse"
parents = ["small"]
times = 2
cross = "relative:0.01"

[stages.large]
kind = "pretrain"
from = "fused"

[stages.score]
kind = "evaluate"
model = "large"
examples = 8

[stages.glue]
kind = "glue"
model = "large"
tasks = ["cola"]
steps = 4
batch_size = 4
evaluate_every = 2
"#;
    const COLA: &str = "a\t1\t\tA word is here.\na\t0\t*\tWord a here is.\na\t1\t\tThe tree is old.\n";
    let folder =
        directory(&[("recipe.toml", RECIPE), ("glue/CoLA/train.tsv", COLA), ("glue/CoLA/dev.tsv", COLA)]);
    let run = |output| ["run", "recipe.toml", "--glue", "glue", "--output", output];
    call_in(folder.path(), &run("one")).success();
    call_in(folder.path(), &launched("2", &run("two"))).success();
    let loss = |run: &str| {
        let path = folder.path().join(run).join("score/evaluation.json");
        let score: Value = serde_json::from_str(&fs::read_to_string(path).expect("a score")).expect("JSON");
        score["loss"].as_f64().expect("a loss")
    };
    assert!((loss("two") / loss("one") - 1.0).abs() < 1e-4);
    let report = |run: &str| {
        let report = fs::read_to_string(folder.path().join(run).join("report.md")).expect("a report");
        report.lines().filter(|line| line.starts_with("| glue")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(report("two").len(), report("one").len());
    let model = ["--model", "two/large"];
    let glue = ["glue", "--glue", "glue", "--tasks", "cola", "--steps", "2", "--evaluate-every", "2"];
    let glue = [&glue, &model[..], &["--batch-size", "4", "--output", "scores"]].concat();
    let table = call_in(folder.path(), &launched("2", &glue)).success();
    assert!(table.contains("CoLA") && folder.path().join("scores/table.md").exists(), "{table}");
    let evaluate = ["evaluate", "--text", "builtin:webster", "--examples", "8", "--input-length", "32"];
    let evaluate = [&evaluate, &model[..]].concat();
    let found = call_in(folder.path(), &launched("2", &evaluate)).success();
    assert_eq!(found, call_in(folder.path(), &evaluate).success(), "said once, and the same");
    let again = call_in(folder.path(), &launched("2", &run("two")));
    assert!(again.stderr.contains("large: finished before"), "{}", again.stderr);
    again.success();
    let jobs = [run("two").as_slice(), &["--jobs", "2"]].concat();
    let said = call_in(folder.path(), &launched("2", &jobs)).failure();
    assert!(said.contains("run one stage at a time"), "{said}");
}

#[test]
fn what_several_cannot_do_is_refused_once() {
    let refused =
        call_in(Path::new("."), &["launch", "--processes", "2", "--", "fuse", "a", "b", "--output", "c"]);
    let expected =
        "error: only run, pretrain, evaluate, glue and data tokenize compute in several processes together\n";
    assert_eq!(refused.failure(), expected);
    let variables = [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")];
    let refused = call_with(Path::new("."), &["inspect", "a"], &variables);
    assert_eq!(refused.failure(), format!("rank 1: {expected}"));
}

/// Two network namespaces joined by a cable, each as good as a host; gone when dropped.
struct Hosts([String; 2]);

impl Hosts {
    /// `None` where this process may not make any.
    fn new() -> Option<Hosts> {
        let id = std::process::id();
        let hosts = Hosts(["a", "b"].map(|name| format!("df{name}{id}")));
        let [a, b] = &hosts.0;
        let ip = |arguments: &str| {
            let ended = Command::new("ip").args(arguments.split_whitespace()).stderr(Stdio::null()).status();
            ended.is_ok_and(|status| status.success())
        };
        let made = ip(&format!("netns add {a}"))
            && ip(&format!("netns add {b}"))
            && ip(&format!("link add cable netns {a} type veth peer name cable netns {b}"))
            && [(a, 1), (b, 2)].into_iter().all(|(host, number)| {
                ip(&format!("-n {host} addr add 10.77.0.{number}/24 dev cable"))
                    && ip(&format!("-n {host} link set cable up"))
                    && ip(&format!("-n {host} link set lo up"))
            });
        made.then_some(hosts)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", host]).stderr(Stdio::null()).status();
        }
    }
}

/// Where the tests may make network namespaces, as root may.
#[test]
fn two_hosts_train_as_one() {
    let Some(hosts) = Hosts::new() else { return };
    let folder = folder();
    call_in(folder.path(), &training("6", "one")).success();
    let start = |rank: usize| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &hosts.0[rank], PROGRAM]).args(training("6", "two"));
        command.envs([("RANK", rank.to_string()), ("WORLD_SIZE", "2".into()), ("LOCAL_RANK", "0".into())]);
        command.envs([("MASTER_ADDR", "10.77.0.1"), ("MASTER_PORT", "24714")]);
        command.current_dir(folder.path()).stderr(Stdio::piped()).stdout(Stdio::null());
        command.spawn().expect("the program starts")
    };
    for process in [start(0), start(1)] {
        let ended = process.wait_with_output().expect("it ends");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_alike(&folder.path().join("two"), &folder.path().join("one"));
}
