//! The compiled-in backends compared.

use serde_json::Value;

use crate::program::{call, call_in, directory};

const RECIPE: &str = r#"
[data]
text = "builtin:webster"
held_out_every = 20
tokenizer = "words"
input_length = 48
max_documents = 400

[models.small]
d_model = 32
num_heads = 2
d_kv = 16
d_ff = 64
num_layers = 2

[stages.words]
kind = "tokenizer"
vocabulary = 400

[stages.small]
kind = "pretrain"
model = "small"
steps = 20
batch_size = 8
micro_batch_size = 4
dropout = 0.1
z_loss = 1e-4
schedule = { peak = 0.01, warm_up = 2, decay = { kind = "constant" } }
evaluation_batches = 1
log_every = 1
"#;

/// The backends and devices that `cargo xtask backends` lists, as `--backend` and `--device` accept them.
fn devices() -> Vec<[String; 2]> {
    let listed = call(&["backends", "--json"]).success();
    let listed: Vec<Value> = serde_json::from_str(&listed).expect("JSON");
    let name = |named: &Value| named["name"].as_str().expect("a name").to_owned();
    let devices = |backend: &Value| {
        let devices = backend["devices"].as_array().expect("devices");
        devices.iter().map(|device| [name(backend), name(device)]).collect::<Vec<_>>()
    };
    listed.iter().flat_map(devices).collect()
}

#[test]
fn all_pass_the_suite_on_one_thread() {
    for [backend, device] in devices() {
        let on = ["conformance", "--backend", &backend, "--device", &device, "--threads", "1"];
        call(&on).success();
    }
}

/// Batches, dropout and initial weights come from the host, so the losses of two training runs differ only by
/// rounding.
#[test]
fn all_train_alike() {
    let folder = directory(&[("recipe.toml", RECIPE)]);
    let losses = |[backend, device]: &[String; 2]| {
        let output = format!("{backend}-{device}");
        let run = ["run", "recipe.toml", "--backend", backend, "--device", device, "--output", &output];
        call_in(folder.path(), &run).success();
        let metrics = folder.path().join(output).join("small/metrics.jsonl");
        let lines = std::fs::read_to_string(metrics).expect("metrics");
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let steps = lines.filter(|line| line["kind"] == "train");
        steps.map(|line| line["loss"].as_f64().expect("a loss")).collect::<Vec<f64>>()
    };
    let devices = devices();
    let expected = losses(&devices[0]);
    assert!(expected.len() == 20 && expected[19] < expected[0], "{expected:?}");
    for device in &devices[1..] {
        let found = losses(device);
        assert_eq!(found.len(), expected.len(), "{device:?}");
        for (step, (found, expected)) in (1..).zip(found.iter().zip(&expected)) {
            let error = (found / expected - 1.0).abs();
            assert!(error < 1e-4, "{device:?}, step {step}: {found} instead of {expected}");
        }
    }
}

/// Weights trained in one precision cannot be trained further in another by mistake. Tests nothing where no
/// backend has two.
#[test]
fn a_training_goes_on_in_its_own_precision() {
    let folder = directory(&[("recipe.toml", RECIPE)]);
    call_in(folder.path(), &["run", "recipe.toml", "--only", "words", "--output", "run"]).success();
    let listed: Vec<Value> = serde_json::from_str(&call(&["backends", "--json"]).success()).expect("JSON");
    for backend in &listed {
        let name = backend["name"].as_str().expect("a name");
        let precisions = &backend["devices"][0]["precisions"];
        if !precisions.as_array().is_some_and(|precisions| precisions.contains(&"bf16".into())) {
            continue;
        }
        let train = |precision: &str| {
            let model = "--d-model 16 --num-heads 1 --d-kv 16 --d-ff 16 --num-layers 1";
            let text = "--text builtin:webster --held-out-every 20 --max-documents 400 --input-length 48";
            let rest = "--tokenizer run/words/tokenizer --steps 2 --batch-size 2 --micro-batch-size 2 --evaluation-batches 1 --output";
            let words = format!(
                "pretrain {model} {text} {rest} {name}-trained --backend {name} --precision {precision}"
            );
            call_in(folder.path(), &words.split(' ').collect::<Vec<_>>())
        };
        train("bf16").success();
        train("bf16").success();
        let refused = train("f32").failure();
        assert!(refused.contains("another `precision`"), "{refused}");
    }
}

/// Needs only the backend, not a GPU.
#[test]
fn a_dry_run_tells_the_memory_of_trainings_on_a_gpu() {
    let folder = directory(&[("recipe.toml", RECIPE)]);
    let arguments = ["run", "recipe.toml", "--plan", "--backend", "tch", "--device", "cuda:0"];
    let text = call_in(folder.path(), &arguments).success();
    match cfg!(feature = "tch") {
        true => {
            let (_, known) = text.split_once("  memory    up to ").unwrap_or_else(|| panic!("{text}"));
            assert!(known.starts_with(|first: char| first.is_ascii_digit()), "{text}");
            assert!(known.contains(" MB (small)\n") && known.contains("MB  tch cuda:0  words\n"), "{text}");
        }
        false => {
            assert!(text.contains("memory    not known on cuda:0: tch is not compiled in\n"), "{text}")
        }
    }
}
