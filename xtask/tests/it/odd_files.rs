//! Sound files of other programs, and what only looks like a file of data.

use std::fs;
use std::path::Path;

use fusion_core::checkpoint::{Checkpoint, LazyTensor, Writer};
use fusion_core::{Dtype, TensorSource};

use crate::program::{call, directory, golden, text};

/// A copy of a model with tensors that no T5 has, of every kind.
fn with_others(model: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    fs::copy(model.join("config.json"), to.join("config.json")).expect("copied");
    let checkpoint = Checkpoint::open(model).expect("a model");
    let mut tensors = LazyTensor::all(&checkpoint).expect("tensors");
    let others: [(&str, Dtype, Vec<usize>, &[u8]); 8] = [
        ("encoder.position_ids", Dtype::I64, vec![2], &[0; 16]),
        ("step", Dtype::I64, vec![], &[1, 0, 0, 0, 0, 0, 0, 0]),
        ("empty", Dtype::F32, vec![0, 5], &[]),
        ("empty.matrix", Dtype::F32, vec![5, 0], &[]),
        ("mask", Dtype::BOOL, vec![2], &[0, 1]),
        ("scale", Dtype::F8_E4M3, vec![3], b"abc"),
        ("näme \u{2603}/..", Dtype::U8, vec![1], b"x"),
        (
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
            Dtype::F32,
            vec![1, 1],
            &[0, 0, 128, 63],
        ),
    ];
    let odd = |(name, dtype, shape, bytes): (&str, Dtype, Vec<usize>, &'static [u8])| {
        LazyTensor::of_bytes(name, dtype, shape, bytes)
    };
    tensors.extend(others.into_iter().map(odd));
    Writer::default().file(&to.join("model.safetensors"), tensors).expect("written");
}

#[test]
fn tensors_that_no_t5_has_change_nothing() {
    let folder = directory(&[]);
    let at = |name: &str| folder.path().join(name);
    let parents = ["parent_0", "parent_1"].map(|name| golden(&format!("fusion/untied/{name}")));
    with_others(&parents[0], &at("odd"));
    let inspect = |model: &Path| {
        let text = call(&["inspect", text(model), "--json"]).success();
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json
    };
    let (odd, plain) = (inspect(&at("odd")), inspect(&parents[0]));
    assert_eq!(odd["health"]["misfits"], plain["health"]["misfits"]);
    assert_eq!(odd["health"]["not_finite"], plain["health"]["not_finite"]);
    assert_eq!(odd["parameters"].as_u64(), plain["parameters"].as_u64().map(|parameters| parameters + 1));
    assert_eq!(odd["tensors_by_type"]["I64"], 2);

    let hash = |model: &str| inspect(&at(model))["blake3"].clone();
    call(&["fuse", text(&at("odd")), text(&parents[1]), "--output", text(&at("a"))]).success();
    call(&["fuse", text(&parents[0]), text(&parents[1]), "--output", text(&at("b"))]).success();
    assert_eq!(hash("a"), hash("b"));
    let converted = call(&["convert", text(&at("odd")), "--output", text(&at("c"))]);
    assert!(converted.stderr.contains("relative_attention_bias"), "{}", converted.stderr);
    converted.success();
    call(&["export", text(&at("odd")), "--output", text(&at("d"))]).success();
    assert_eq!(hash("c"), plain["blake3"]);
    call(&["verify", text(&at("a")), text(&at("odd")), text(&parents[1])]).success();
}

/// A server's page, and what a repository holds where large files are kept elsewhere.
#[test]
fn pages_and_pointers_are_not_taken_for_data() {
    let page = "<!DOCTYPE html>\n<html><body>Log in</body></html>\n";
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let folder = directory(&[("texts/a.txt", "a b c")]);
    let model = folder.path().join("model");
    let mut messages = String::new();
    for (name, content) in [
        ("model.safetensors", page),
        ("model.safetensors", pointer),
        ("model.safetensors.index.json", page),
        ("pytorch_model.bin", pointer),
        ("config.json", page),
        ("config.json", pointer),
        ("tokenizer.json", page),
        ("spiece.model", pointer),
        ("tokenizer.json", pointer),
    ] {
        let _ = fs::remove_dir_all(&model);
        fs::create_dir(&model).expect("a directory");
        let weights = ["config.json", "model.safetensors"];
        let own: &[&str] = if name.starts_with("model.safetensors.") || name.starts_with("pytorch") {
            &weights[..1]
        } else {
            &weights
        };
        for file in own {
            fs::copy(golden("v1_1").join(file), model.join(file)).expect("copied");
        }
        fs::write(model.join(name), content).expect("written");
        let texts = folder.path().join("texts");
        let arguments = ["evaluate", "--model", text(&model), "--text", text(&texts), "--input-length", "16"];
        messages += &format!("{name}: {}", call(&arguments).failure());
    }
    insta::assert_snapshot!(messages.replace(text(folder.path()), "DIR"));
}

/// Editors on some systems begin a file with a byte-order mark.
#[test]
fn byte_order_marks_do_not_count() {
    let folder = directory(&[]);
    let plain = golden("v1_1");
    fs::copy(plain.join("model.safetensors"), folder.path().join("model.safetensors")).expect("copied");
    let config = fs::read_to_string(plain.join("config.json")).expect("a configuration");
    fs::write(folder.path().join("config.json"), format!("\u{feff}{config}").replace('\n', "\r\n"))
        .expect("written");
    let inspect = |model: &Path| {
        let called = call(&["inspect", text(model), "--json"]).success();
        serde_json::from_str::<serde_json::Value>(&called).expect("JSON")["config"].clone()
    };
    assert_eq!(inspect(folder.path()), inspect(&plain));
    let names = Checkpoint::open(folder.path()).expect("a model").names();
    assert_eq!(names, Checkpoint::open(&plain).expect("a model").names());
}
