//! Exports small models made by transformers. `.ci/check-transformers` checks what transformers makes of the
//! exports.

use std::fs;
use std::path::Path;

use fusion_core::checkpoint::Checkpoint;
use fusion_core::{Dtype, TensorSource};
use serde_json::{Value, json};

use crate::program::{call, directory, golden, text};

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a file")
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_property_model_brings_its_code() {
    let (a, b) = (golden("fusion/untied/parent_0"), golden("fusion/untied/parent_unequal"));
    let folder = directory(&[]);
    let (fused, exported) = (folder.path().join("fused"), folder.path().join("my-t5"));
    let cross = ["--cross", "relative:0.01", "--seed", "7", "--weights", "0.25,0.75"];
    call(&[&["fuse", text(&a), text(&b), "--output", text(&fused)], &cross[..]].concat()).success();
    let inspected = call(&["inspect", text(&fused)]).success();
    assert!(inspected.contains("needs a modelling file"), "{inspected}");

    let card =
        ["--license", "apache-2.0", "--language", "no", "--base-model", "me/a", "--base-model", "me/b"];
    call(&[&["export", text(&fused), "--output", text(&exported)], &card[..]].concat()).success();
    insta::assert_snapshot!("files", files(&exported).join("\n"));
    insta::assert_snapshot!("config", read(&exported.join("config.json")));
    insta::assert_snapshot!("card", read(&exported.join("README.md")));
    let inspected = call(&["inspect", text(&exported)]).success();
    assert!(inspected.contains("trust_remote_code=True"), "{inspected}");

    let again = call(&["export", text(&fused), "--output", text(&exported)]).failure();
    assert!(again.contains("--overwrite"), "{again}");
    let itself = call(&["export", text(&fused), "--output", text(&fused), "--overwrite"]).failure();
    assert!(itself.contains("what is to be read"), "{itself}");
}

#[test]
fn a_stock_model_needs_no_code() {
    let folder = directory(&[]);
    let exported = folder.path().join("small");
    let model = golden("v1_1");
    let options = ["--dtype", "bf16", "--max-shard-size", "4KB"];
    call(&[&["export", text(&model), "--output", text(&exported)], &options[..]].concat()).success();
    let names = files(&exported);
    assert!(!names.iter().any(|name| name.ends_with(".py")), "{names:?}");
    assert!(names.contains(&"model.safetensors.index.json".to_owned()), "{names:?}");
    insta::assert_snapshot!("card_of_a_stock_model", read(&exported.join("README.md")));
    let (written, source) =
        (Checkpoint::open(&exported).expect("a checkpoint"), Checkpoint::open(&model).expect("a checkpoint"));
    assert_eq!(written.config()["torch_dtype"], "bfloat16");
    assert_eq!(written.config()["model_type"], "t5");
    assert_eq!(written.names(), source.names());
    for name in source.names() {
        assert_eq!(written.view(&name).expect("a tensor").dtype(), Dtype::BF16);
        let pair = [&written, &source].map(|model| model.load_f32(&name).expect("a tensor").data);
        let close = pair[0].iter().zip(&pair[1]).all(|(a, b)| (a - b).abs() <= b.abs() / 256.0);
        assert!(close, "{name}");
    }
}

/// transformers 5 can untie what its configuration calls tied, and vice versa; transformers 4 cannot.
#[test]
fn heads_that_transformers_4_does_not_know() {
    let folder = directory(&[]);
    let cases = [("v1_0", json!(false), true), ("v1_1", json!(true), false)];
    for (golden_name, scaled, tied) in cases {
        let source = folder.path().join(golden_name);
        fs::create_dir(&source).expect("a directory");
        let model = golden(golden_name);
        fs::copy(model.join("model.safetensors"), source.join("model.safetensors")).expect("copied");
        let mut config: Value = serde_json::from_str(&read(&model.join("config.json"))).expect("JSON");
        config["tie_word_embeddings"] = true.into();
        config["scale_decoder_outputs"] = scaled;
        fs::write(source.join("config.json"), config.to_string()).expect("written");
        let exported = folder.path().join(format!("{golden_name}-exported"));
        call(&["export", text(&source), "--output", text(&exported)]).success();

        let (written, source) = (
            Checkpoint::open(&exported).expect("a checkpoint"),
            Checkpoint::open(&source).expect("a checkpoint"),
        );
        assert_eq!(written.config()["tie_word_embeddings"], false);
        assert!(!written.config().contains_key("scale_decoder_outputs"));
        let head = written.load_f32("lm_head.weight").expect("a head").data;
        let (from, scale) = if tied { ("shared.weight", 1.0) } else { ("lm_head.weight", 20f32.powf(-0.5)) };
        let expected = source.load_f32(from).expect("a tensor").data;
        let close = head.iter().zip(&expected).all(|(a, b)| (a - b * scale).abs() <= 1e-6 * b.abs());
        assert!(close && head.len() == expected.len(), "{golden_name}");
    }
}
