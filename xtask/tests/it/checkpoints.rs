//! Fusing and inspecting small models that transformers made.

use std::fs;

use crate::program::{call, directory, golden, text};

#[test]
fn a_fused_checkpoint_is_whole() {
    let (a, b) = (golden("fusion/untied/parent_0"), golden("fusion/untied/parent_1"));
    let output = directory(&[]);
    let child = output.path().join("child");
    let fuse =
        |more: &[&str]| call(&[&["fuse", text(&a), text(&b), "--output", text(&child)], more].concat());

    fuse(&["--plan-only"]).success();
    assert!(!child.exists(), "a plan writes nothing");
    let called = fuse(&[]);
    assert!(called.stderr.contains("comes without a tokenizer"), "{}", called.stderr);
    let plan = called.success();
    insta::assert_snapshot!("plan", plan.replace(text(&child), "CHILD"));

    let again = fuse(&[]).failure();
    assert!(again.contains("--overwrite"), "{again}");
    fuse(&["--overwrite", "--norm", "rule", "--dtype", "bf16"]).success();

    let inspected = call(&["inspect", text(&child)]).success();
    insta::assert_snapshot!("inspect_fused", inspected.replace(text(&child), "CHILD"));
}

#[test]
fn a_shallower_parent_passes_through_blocks() {
    let (deep, shallow) = (golden("fusion/untied/parent_0"), golden("fusion/untied/parent_unequal"));
    let output = directory(&[]);
    let child = output.path().join("child");
    for (depth, block) in [("bottom", "block.1."), ("top", "block.0."), ("spread", "block.1.")] {
        let parents = [text(&deep), text(&shallow), "--output", text(&child), "--overwrite"];
        let called = call(&[&["fuse"], &parents[..], &["--depth", depth]].concat());
        assert!(called.stderr.contains(&format!("`encoder.{block}layer.0.SelfAttention.q.weight`")));
        called.success();
        let lineage = fs::read_to_string(child.join("lineage.json")).expect("written");
        assert!(lineage.contains(&format!("\"depth\": \"{depth}\"")), "{lineage}");
        let inspected = call(&["inspect", text(&child), "--json"]).success();
        let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
        assert!(inspected["health"].is_object(), "{inspected}");
    }
}

#[test]
fn self_fusion_leaves_equal_halves_unless_noise_tells_them_apart() {
    let parent = golden("fusion/untied/parent_0");
    let output = directory(&[]);
    let fused = |cross: &str| {
        let child = output.path().join(cross.replace([':', '.'], "-"));
        let called = call(&[
            "fuse",
            text(&parent),
            "--times",
            "2",
            "--output",
            text(&child),
            "--cross",
            cross,
            "--seed",
            "7",
        ]);
        let warned = called.stderr.contains("stay equal");
        called.success();
        let inspected = call(&["inspect", text(&child), "--json"]).success();
        let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
        (warned, inspected["health"]["equal_halves"].as_array().expect("a list").len(), inspected)
    };
    let (warned, equal, inspected) = fused("zero");
    assert!(warned);
    assert_eq!(equal, inspected["health"]["matrices"], "every matrix is made of two equal halves");
    let (warned, some, _) = fused("relative:0.01");
    assert!(!warned);
    assert!(some < equal, "{some} of {equal}");
}

#[test]
fn parents_that_cannot_be_fused() {
    let parent = golden("fusion/untied/parent_0");
    let output = directory(&[("child/notes.txt", "mine")]);
    let child = output.path().join("child");
    let fuse = |parents: &[&str], more: &[&str]| {
        call(&[&["fuse"], parents, &["--output", text(&child)], more].concat()).failure()
    };
    let tied = golden("fusion/tied/parent_0");
    let kept = fuse(&[text(&parent), text(&parent)], &["--overwrite"]);
    assert!(kept.contains("holds no checkpoint"), "{kept}");
    fs::remove_dir_all(&child).expect("removed");
    let mixed = fuse(&[text(&parent), text(&tied)], &[]);
    assert!(mixed.contains("cannot be fused"), "{mixed}");
    let times = fuse(&[text(&parent), text(&parent)], &["--times", "2"]);
    assert!(times.contains("`times` repeats a single parent"), "{times}");
    let nothing = fuse(&["/no/such/model", text(&parent)], &[]);
    assert!(nothing.contains("/no/such/model"), "{nothing}");
    assert!(!child.exists(), "a failed fusion leaves nothing");
}

#[test]
fn weights_unlike_their_configuration_are_named() {
    let folder = directory(&[]);
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden("fusion/untied/parent_0").join(name), folder.path().join(name)).expect("copied");
    }
    let path = folder.path().join("config.json");
    let config = fs::read_to_string(&path).expect("a configuration");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["d_ff"] = 1.into();
    fs::write(&path, config.to_string()).expect("written");
    let inspected = call(&["inspect", text(folder.path())]).success();
    let misfits = inspected.lines().skip_while(|line| !line.contains("unlike config")).take(7);
    insta::assert_snapshot!("inspect_misfits", misfits.collect::<Vec<_>>().join("\n"));
}
