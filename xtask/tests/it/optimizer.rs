//! Optimisers' states stored with weights, and what a fusion does with them.

use std::fs;
use std::path::{Path, PathBuf};

use fusion_core::checkpoint::{Checkpoint, LazyTensor, TensorFile, Writer};
use fusion_core::{HostTensor, HostTensors, TensorSource};
use serde_json::{Value, json};
use t5_model::Optimizer;
use t5_model::optimizer::write_optimizer_state;

use crate::program::{call, directory, golden, text};

/// A golden with an optimiser state whose means are the weights and whose squares are the weights' squares.
fn with_state(folder: &Path, name: &str, optimizer: Optimizer, step: u64) -> PathBuf {
    let parent = folder.join(name);
    fs::create_dir(&parent).expect("a directory");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("fusion/untied").join(name).join(file), parent.join(file)).expect("copied");
    }
    let checkpoint = Checkpoint::open(&parent).expect("a checkpoint");
    let moments = checkpoint.names().into_iter().flat_map(|name| {
        let means = checkpoint.load_f32(&name).expect("weights");
        let data = means.data.iter().map(|value| value * value).collect();
        let squares = HostTensor { shape: means.shape.clone(), data };
        [(format!("{name}.exp_avg"), means), (format!("{name}.exp_avg_sq"), squares)]
    });
    let moments: HostTensors = moments.collect();
    write(&parent, optimizer, step, &moments);
    parent
}

fn write(parent: &Path, optimizer: Optimizer, step: u64, moments: &HostTensors) {
    let tensors = LazyTensor::all(moments).expect("there");
    let weights = Checkpoint::open(parent).and_then(|checkpoint| checkpoint.blake3()).expect("a hash");
    write_optimizer_state(parent, optimizer, step, &weights, tensors, &Writer::default()).expect("written");
}

fn json_in(directory: &Path, file: &str) -> Value {
    serde_json::from_slice(&fs::read(directory.join(file)).expect("a file")).expect("JSON")
}

#[test]
fn a_fusion_carries_states() {
    let folder = directory(&[]);
    let a = with_state(folder.path(), "parent_0", Optimizer::adamw(), 30);
    let b = with_state(folder.path(), "parent_1", Optimizer::adamw(), 20);
    let fuse = |mode: &str| {
        let child = folder.path().join(mode);
        call(&["fuse", text(&a), text(&b), "--optimizer", mode, "--output", text(&child)]).success();
        let fusion = json_in(&child, "lineage.json")["fusion"].take();
        (child, fusion["optimizer"].clone())
    };
    let (reset, recorded) = fuse("reset");
    assert_eq!(recorded, Value::Null);
    assert!(!reset.join("optimizer.json").exists() && !reset.join("optimizer.safetensors").exists());

    for mode in ["carry", "diagonal"] {
        let (child, recorded) = fuse(mode);
        assert_eq!(recorded, mode);
        let header = json_in(&child, "optimizer.json");
        assert_eq!(header["step"], 20, "the smaller");
        assert_eq!(header["optimizer"]["name"], "adamw");
        let checkpoint = Checkpoint::open(&child).expect("a checkpoint");
        assert_eq!(header["weights_blake3"], checkpoint.blake3().expect("a hash"));
        let file = TensorFile::open(&child.join("optimizer.safetensors")).expect("a file");
        assert_eq!(file.names().len(), 2 * checkpoint.names().len());

        let name = "decoder.block.0.layer.2.DenseReluDense.wo.weight";
        let own = [&a, &b].map(|parent| {
            Checkpoint::open(parent).and_then(|parent| parent.load_f32(name)).expect("weights")
        });
        let [means, squares] = ["exp_avg", "exp_avg_sq"]
            .map(|moment| file.load_f32(&format!("{name}.{moment}")).expect("a moment"));
        let (columns, first) = (means.shape[1], own[0].shape[1]);
        // The first parent's bias corrections are for 30 steps, the child's for 20.
        let fuller = |beta: f64| (1.0 - beta.powi(20)) / (1.0 - beta.powi(30));
        let weight = f64::from(own[0].data[first + 2]);
        let expected = [weight / 2.0 * fuller(0.9), (weight / 2.0).powi(2) * fuller(0.999)];
        let at = |row: usize, column: usize| {
            [&means, &squares].map(|tensor| f64::from(tensor.data[row * columns + column]))
        };
        let close = |found: [f64; 2], expected: [f64; 2]| {
            found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs())
        };
        assert!(close(at(1, 2), expected), "{:?} for {expected:?}", at(1, 2));
        let weight = f64::from(own[1].data[own[1].shape[1] + 2]);
        let expected = [weight / 2.0, (weight / 2.0).powi(2)];
        let found = at(own[0].shape[0] + 1, first + 2);
        assert!(close(found, expected), "{found:?} for {expected:?}");
        let [mean, square] = at(1, first + 2);
        assert_eq!((mean, square > 0.0), (0.0, mode == "carry"));
    }
}

#[test]
fn states_that_cannot_be_carried() {
    let folder = directory(&[]);
    let parent = |name: &str, optimizer, step| {
        let place = folder.path().join(name);
        fs::create_dir(&place).expect("a directory");
        with_state(&place, "parent_0", optimizer, step)
    };
    let adamw = Optimizer::adamw();
    let good = parent("good", adamw, 5);
    let header = |name: &str, change: fn(&mut Value)| {
        let parent = parent(name, adamw, 5);
        let mut header = json_in(&parent, "optimizer.json");
        change(&mut header);
        fs::write(parent.join("optimizer.json"), header.to_string()).expect("written");
        parent
    };
    let without = golden("fusion/untied/parent_1");
    let other = parent("other", Optimizer::adamw_scale(), 5);
    let unused = parent("unused", adamw, 0);
    let newer = header("newer", |header| header["version"] = 2.into());
    let damaged = header("damaged", |header| header["blake3"] = "00".into());
    let exchanged = header("exchanged", |header| header["weights_blake3"] = "00".into());
    let unknown = header("unknown", |header| header["optimizer"] = json!({ "name": "sgd" }));
    let partial = parent("partial", adamw, 5);
    write(&partial, adamw, 5, &HostTensors::default());
    let small = parent("small", adamw, 5);
    let tensor = |name: &str| (format!("shared.weight.{name}"), HostTensor::zeros([2, 3]));
    write(&small, adamw, 5, &[tensor("exp_avg"), tensor("exp_avg_sq")].into_iter().collect());

    let child = folder.path().join("child");
    let mut messages = String::new();
    for second in [&without, &other, &unused, &newer, &damaged, &exchanged, &unknown, &partial, &small] {
        let arguments = ["fuse", text(&good), text(second), "--optimizer", "carry", "--output", text(&child)];
        messages += &call(&arguments).failure();
    }
    for options in [&["--method", "lemon", "--d-ff", "90"][..], &["--method", "stack"]] {
        let arguments = ["fuse", text(&good), "--optimizer", "diagonal", "--output", text(&child)];
        messages += &call(&[&arguments, options].concat()).failure();
    }
    assert!(!child.exists());
    let goldens = golden("");
    insta::assert_snapshot!(
        messages.replace(text(folder.path()), "FOLDER").replace(text(&goldens), "GOLDENS/")
    );
}
