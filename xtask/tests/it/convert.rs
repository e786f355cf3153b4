//! Converts weights from other formats, and compares them with those written by transformers.

use std::fs;
use std::path::Path;

use crate::program::{Called, call, directory, golden, text};

fn convert(input: &Path, output: &Path, more: &[&str]) -> Called {
    call(&[&["convert", text(input), "--output", text(output)], more].concat())
}

fn inspected(model: &Path) -> serde_json::Value {
    serde_json::from_str(&call(&["inspect", text(model), "--json"]).success()).expect("JSON")
}

/// The configuration of an inspected model, beside weights of this type.
fn beside(inspected: &serde_json::Value, dtype: &str) -> serde_json::Value {
    let mut config = inspected["config"].clone();
    config["torch_dtype"] = dtype.into();
    config
}

#[test]
fn t5x_checkpoints_become_what_transformers_wrote() {
    let folder = directory(&[]);
    for name in ["v1_1", "v1_0"] {
        let (original, converted) = (inspected(&golden(name)), folder.path().join(name));
        let input = golden(&format!("t5x/{name}.checkpoint"));
        let config = golden(name).join("config.json");
        convert(&input, &converted, &["--config", text(&config)]).success();
        assert_eq!(inspected(&converted)["blake3"], original["blake3"], "{name}");
        assert_eq!(inspected(&converted)["config"], beside(&original, "float32"), "{name}");

        // T5X's directories contain a file of this name. The maximum distance cannot be inferred from the
        // shapes.
        fs::create_dir(folder.path().join("t5x")).expect("a directory");
        fs::copy(&input, folder.path().join("t5x/checkpoint")).expect("copied");
        let called = convert(&folder.path().join("t5x"), &converted, &["--overwrite"]);
        assert!(called.stderr.contains("made up from the weights' shapes"), "{}", called.stderr);
        called.success();
        assert_eq!(inspected(&converted)["blake3"], original["blake3"], "{name}");
        let (mut own, expected) = (inspected(&converted)["config"].clone(), &original["config"]);
        own["relative_attention_max_distance"] = expected["relative_attention_max_distance"].clone();
        let dimensions = expected
            .as_object()
            .expect("an object")
            .keys()
            .filter(|key| !["dropout_rate", "initializer_factor", "use_cache"].contains(&key.as_str()));
        dimensions.for_each(|key| assert_eq!(own[key], expected[key], "{name}: {key}"));
        fs::remove_dir_all(folder.path().join("t5x")).expect("removed");
    }
}

/// The fixture is not in the repository. The hash is the one that `t5x_goldens.py` prints for it.
#[test]
fn a_checkpoint_that_t5x_wrote() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let fixture = data.join("fixtures/t5x/test_t5_tiny.checkpoint_0");
    if !fixture.is_file() {
        return;
    }
    let folder = directory(&[]);
    let converted = folder.path().join("tiny");
    convert(&fixture, &converted, &[]).success();
    let tiny = inspected(&converted);
    assert_eq!(tiny["blake3"], "bcfee2c485e8cc8c91c993924ce6949f43771ce667c38c6ca063e790092e5420");
    let expected = [("vocab_size", 32_128), ("d_model", 8), ("num_heads", 4), ("d_kv", 3), ("d_ff", 16)];
    for (key, size) in expected {
        assert_eq!(tiny["config"][key], size, "{key}");
    }
}

#[test]
fn state_dicts_and_checkpoints() {
    let folder = directory(&[]);
    let (whole, half) = (folder.path().join("whole"), folder.path().join("half"));
    let original = golden("v1_1");
    let input = golden("t5x/v1_1.bin");
    convert(&input, &whole, &["--config", text(&original.join("config.json"))]).success();
    assert_eq!(inspected(&whole)["blake3"], inspected(&original)["blake3"]);
    convert(&whole, &half, &["--dtype", "bf16"]).success();
    assert_eq!(inspected(&half)["config"], beside(&inspected(&original), "bfloat16"));
    let types = inspected(&half)["tensors_by_type"].clone();
    assert!(types["BF16"].is_number() && types["F32"].is_null(), "{types}");

    // A child keeps its lineage, updated for its present weights.
    let (child, again) = (folder.path().join("child"), folder.path().join("again"));
    call(&["fuse", text(&original), text(&whole), "--output", text(&child)]).success();
    convert(&child, &again, &["--dtype", "f16"]).success();
    let again = inspected(&again);
    assert_eq!(again["lineage"]["blake3"], again["blake3"]);
    assert_eq!(again["lineage"]["fusion"], inspected(&child)["lineage"]["fusion"]);
    assert_eq!(again["norm_groups"], serde_json::json!([20, 20]));
}

#[test]
fn what_is_no_model_says_why() {
    let folder = directory(&[("config.json", "{"), ("notes.txt", "these are no weights")]);
    let output = folder.path().join("output");
    let input = golden("t5x/v1_1.checkpoint");
    let (config, bytes) = (golden("v1_0").join("config.json"), fs::read(&input).expect("readable"));
    // Another array name of the same length.
    let renamed = |from: &[u8], to: &[u8]| {
        let path = folder.path().join("renamed");
        let at = bytes.windows(from.len()).rposition(|window| window == from).expect("there");
        fs::write(&path, [&bytes[..at], to, &bytes[at + from.len()..]].concat()).expect("written");
        path
    };
    let mut messages = convert(&input, &output, &["--config", text(&config)]).failure();
    messages += &convert(&renamed(b"layers_1", b"layers_7"), &output, &[]).failure();
    messages += &convert(&renamed(b"token_embedder", b"token_imbedder"), &output, &[]).failure();
    messages += &convert(&renamed(b"target", b"others"), &output, &[]).failure();
    messages += &convert(&folder.path().join("notes.txt"), &output, &[]).failure();
    messages += &convert(&input, &output, &["--config", text(&folder.path().join("config.json"))]).failure();
    messages += &convert(&folder.path().join("absent"), &output, &[]).failure();
    messages += &convert(folder.path(), &output, &[]).failure();
    messages += &convert(&golden("t5x/v1_1.bin"), folder.path(), &[]).failure();
    assert!(!output.exists());
    let messages = messages.replace(text(folder.path()), "DIR");
    insta::assert_snapshot!(messages.replace(text(&golden("")), "GOLDENS/"));
}
