//! A run that is killed, at whatever point, and started again gives the same result as an uninterrupted one.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fusion_core::atomic::RECORD;

use crate::program::{PROGRAM, call_in, directory, text};

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
steps = 12
batch_size = 4
micro_batch_size = 2
dropout = 0.1
schedule = { peak = 0.02, warm_up = 2, decay = { kind = "cosine", minimum = 1e-5 } }
evaluate_every = 4
evaluation_batches = 1
checkpoint_every = 3
log_every = 1

[stages.words]
kind = "tokenizer"
vocabulary = 400

[stages.small]
kind = "pretrain"
model = "small"
optimizer = { name = "adamw_scale" }
keep_optimizer = true

[stages.grown]
kind = "fuse"
parents = ["small"]
times = 2
cross = "relative:0.1"
optimizer = "carry"

[stages.large]
kind = "pretrain"
from = "grown"
optimizer = { name = "adafactor" }

[stages.carried]
kind = "pretrain"
from = "grown"
carry_optimizer = true
schedule = { offset = 12, re_warm_up = 3 }

[stages.glue]
kind = "glue"
model = "large"
tasks = ["cola", "stsb"]
steps = 9
batch_size = 2
evaluate_every = 4
checkpoint_every = 2
log_every = 1
seeds = 2
"#;

const COLA: &str = "\
    a\t1\t\tA word is here.\na\t0\t*\tWord a here is.\na\t1\t\tThe tree is old.\na\t0\t*\tTree the old.\n";
const STSB: &str = "\
    sentence1\tsentence2\tscore\nA tree.\tA plant.\t3.6\nA tree.\tA stone.\t0.4\nA word.\tA term.\t4.8\n";

const MODELS: [&str; 4] = ["small", "grown", "large", "carried"];

/// Points at which to kill a process: a path in the run, and the minimum number of lines in it.
const POINTS: [(&str, usize); 17] = [
    ("words/begun.json", 0),
    ("words/stage.json", 0),
    ("small/metrics.jsonl", 3), // before the first checkpoint
    ("small/checkpoints/step-00000003", 0),
    ("small/metrics.jsonl", 8), // between two checkpoints
    ("small/model", 0),         // finished, but for the stage's record
    ("grown/begun.json", 0),
    ("large/begun.json", 0),
    ("large/checkpoints/step-00000006", 0),
    ("large/model", 0),
    ("carried/metrics.jsonl", 3),
    ("carried/checkpoints/step-00000003", 0),
    ("glue/seed-0/cola/checkpoint", 0),
    ("glue/seed-0/cola/predictions/cola-last.jsonl", 0),
    ("glue/seed-0/cola/result.json", 0),
    ("glue/seed-0/stsb/checkpoint", 0),
    ("glue/seed-1/stsb/checkpoint", 0),
];

fn reached(run: &Path, (path, lines): (&str, usize)) -> bool {
    let path = run.join(path);
    match lines {
        0 => path.exists(),
        _ => fs::read_to_string(path).is_ok_and(|text| text.lines().count() >= lines),
    }
}

/// Runs the recipe and kills the process once the point is reached. Returns whether it was: the process may
/// end first.
fn killed_at(folder: &Path, run: &Path, point: (&str, usize)) -> bool {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "recipe.toml", "--glue", "glue", "--jobs", "2", "--output", text(run)]);
    command.current_dir(folder);
    let mut process =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    loop {
        if let Some(status) = process.try_wait().expect("the process's status") {
            assert!(status.success(), "before {point:?}: {status}");
            return false;
        }
        if reached(run, point) {
            process.kill().expect("the process is killed");
            return !process.wait().expect("the process's status").success();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The lines of metrics without those values that depend on the clock.
fn metrics(run: &Path, stage: &str) -> Vec<serde_json::Value> {
    let lines = fs::read_to_string(run.join(stage).join("metrics.jsonl")).expect("metrics");
    let line = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line.as_object_mut().expect("an object").remove("tokens_per_second");
        line
    };
    lines.lines().map(line).collect()
}

/// Names of temporary files left next to the run's results.
fn leftovers(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        if entry.path().is_dir() {
            found.extend(leftovers(&entry.path()));
        }
        if name.starts_with('.') && !name.ends_with(".lock") && name != RECORD {
            found.push(name);
        }
    }
    found
}

#[test]
fn a_run_killed_again_and_again_comes_to_the_same() {
    let folder = directory(&[
        ("recipe.toml", RECIPE),
        ("glue/CoLA/train.tsv", COLA),
        ("glue/CoLA/dev.tsv", COLA),
        ("glue/STS-B/train.tsv", STSB),
        ("glue/STS-B/dev.tsv", STSB),
    ]);
    let folder = folder.path();
    let (whole, broken) = (folder.join("whole"), folder.join("broken"));
    let run =
        |output: &Path| call_in(folder, &["run", "recipe.toml", "--glue", "glue", "--output", text(output)]);
    run(&whole).success();

    // The number of kills that hit depends on the machine; the result must not.
    let kills = POINTS.iter().filter(|point| killed_at(folder, &broken, **point)).count();
    assert!(kills > 0, "no process was killed before it had finished");
    run(&broken).success();

    for model in MODELS {
        let weights =
            |run: &Path| fs::read(run.join(model).join("model/model.safetensors")).expect("weights");
        assert!(weights(&whole) == weights(&broken), "{model}: other weights than without the {kills} kills");
        let lineage =
            |run: &Path| fs::read_to_string(run.join(model).join("model/lineage.json")).expect("lineage");
        assert_eq!(lineage(&whole), lineage(&broken), "{model}");
    }
    for model in ["small", "large", "carried"] {
        assert_eq!(metrics(&whole, model), metrics(&broken, model), "{model}");
    }
    for file in
        ["glue.json", "seed-0/cola/predictions/cola-best.jsonl", "seed-1/stsb/predictions/stsb-last.jsonl"]
    {
        let file = |run: &Path| fs::read_to_string(run.join("glue").join(file)).expect("a file");
        assert_eq!(file(&whole), file(&broken));
    }
    assert_eq!(leftovers(&broken), [""; 0]);
}
