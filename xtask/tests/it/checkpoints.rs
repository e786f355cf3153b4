//! Fuses and inspects small models made by transformers.

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
fn a_device_makes_the_same_child() {
    let (a, b) = (golden("fusion/untied/parent_0"), golden("fusion/untied/parent_1"));
    let output = directory(&[]);
    let hash = |device: &[&str], more: &[&str]| {
        let child = output.path().join("child");
        let arguments = ["fuse", text(&a), text(&b), "--overwrite", "--output", text(&child)];
        call(&[&arguments, device, more].concat()).success();
        let lineage = fs::read_to_string(child.join("lineage.json")).expect("written");
        let lineage: serde_json::Value = serde_json::from_str(&lineage).expect("JSON");
        lineage["blake3"].as_str().expect("a hash").to_owned()
    };
    // Scaling by 1/2 and drawn numbers are exact to the bit.
    for more in [&["--dtype", "bf16"][..], &["--cross", "db:40"]] {
        let host = hash(&[], more);
        assert_eq!(hash(&["--backend", "burn"], more), host);
        assert_eq!(hash(&["--backend", "burn", "--device", "cpu-plain"], more), host);
    }
    // Other weights are rounded more often, which shows that the device did it.
    let weights = ["--weights", "0.3,0.7"];
    assert_ne!(hash(&["--backend", "burn"], &weights), hash(&[], &weights));
    let refused = |device: &[&str]| {
        call(&[&["fuse", text(&a), text(&b), "--output", text(&output.path().join("none"))], device].concat())
            .failure()
    };
    assert!(refused(&["--backend", "jax"]).contains("compiled in: burn"));
    assert!(refused(&["--backend", "burn", "--device", "tpu"]).contains("cpu-plain"));
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
    let kept = fuse(&[text(&parent), text(&parent)], &["--overwrite"]);
    assert!(kept.contains("holds no checkpoint"), "{kept}");
    fs::remove_dir_all(&child).expect("removed");
    let times = fuse(&[text(&parent), text(&parent)], &["--times", "2"]);
    assert!(times.contains("`--times` repeats a single parent"), "{times}");
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

/// Every method through the command line: what the model predicts compared with its parent, its lineage, and
/// the printed plan.
#[test]
fn methods_that_grow_one_model() {
    let (parent, input) = (golden("fusion/untied/parent_0"), golden("fusion/untied/reference.safetensors"));
    let output = directory(&[]);
    let logits = |model: &std::path::Path| {
        let file = output.path().join("forward.safetensors");
        let files = ["--input", text(&input), "--output", text(&file)];
        call(&[&["forward", "--model", text(model)], &files[..]].concat()).success();
        let file = fusion_core::checkpoint::TensorFile::open(&file).expect("a file");
        fusion_core::TensorSource::load_f32(&file, "logits").expect("logits").data
    };
    let expected = logits(&parent);
    let methods: [(&[&str], bool); 6] = [
        (&["--method", "self"], true),
        (&["--method", "hyperclone", "--times", "3", "--cross", "db:20", "--seed", "4"], true),
        (&["--method", "bert2bert", "--num-heads", "5", "--d-ff", "40", "--cross", "relative:0.1"], true),
        (&["--method", "lemon", "--d-model", "40", "--d-ff", "31", "--seed", "9"], true),
        (&["--method", "stack", "--new-blocks", "silent", "--arrangement", "interleave"], true),
        (&["--method", "stack"], false),
    ];
    let mut lineages = String::new();
    for (index, (options, preserves)) in methods.into_iter().enumerate() {
        let child = output.path().join(index.to_string());
        call(&[&["fuse", text(&parent), "--output", text(&child)], options].concat()).success();
        let pairs = expected.iter().zip(logits(&child));
        let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert_eq!(difference < 2e-5, preserves, "{options:?}: {difference:e}");
        let mut lineage = fusion_core::lineage::Lineage::read(&child).expect("readable").expect("there");
        let fusion = lineage.fusion.as_mut().expect("a fusion");
        fusion.parents.clear();
        lineages += &format!("{}\n", serde_json::to_string(fusion).expect("JSON"));
    }
    insta::assert_snapshot!("lineages_of_methods", lineages);
}

#[test]
fn options_belong_to_methods() {
    let (a, b) = (golden("fusion/untied/parent_0"), golden("fusion/untied/parent_1"));
    let (a, b) = (text(&a), text(&b));
    let cases: [&[&str]; 10] = [
        &[a, "--method", "stack", "--cross", "relative:0.1"],
        &[a, "--method", "lemon", "--weights", "1"],
        &[a, b, "--d-ff", "40"],
        &[a, b, "--method", "hyperclone"],
        &[a, "--method", "net2net"],
        &[a, "--method", "net2net", "--d-ff", "2"],
        &[a, "--method", "net2net", "--d-model", "30"],
        &[a, "--method", "hyperclone", "--times", "0"],
        &[a, "--method", "hyperclone", "--times", "257"],
        &[a, "--method", "hyperclone", "--times", "256"],
    ];
    let error = |options: &&[&str]| call(&[&["fuse", "--output", "nowhere"], *options].concat()).failure();
    insta::assert_snapshot!("options_of_methods", cases.iter().map(error).collect::<String>());
}

#[test]
fn children_are_compared_with_their_ensemble() {
    let (a, b) = (golden("fusion/untied/parent_0"), golden("fusion/untied/parent_unequal"));
    let (a, b) = (text(&a), text(&b));
    let output = directory(&[]);
    let [exact, rule] = ["exact", "rule"].map(|name| output.path().join(name));
    call(&["fuse", a, b, "--weights", "0.7,0.3", "--output", text(&exact)]).success();
    call(&["fuse", a, b, "--norm", "rule", "--output", text(&rule)]).success();

    let report = call(&["verify", text(&exact), a, b]).success();
    assert!(report.contains("The child is the ensemble, to rounding."), "{report}");
    let other_weights = call(&["verify", text(&exact), a, b, "--weights", "0.5,0.5"]).failure();
    assert!(other_weights.contains("more than the tolerance"), "{other_weights}");
    let swapped = call(&["verify", text(&exact), b, a]);
    assert_eq!(swapped.code, Some(1), "parents in another order than the weights");

    let far = call(&["verify", text(&rule), a, b, "--json"]);
    assert_eq!(far.code, Some(1), "{}", far.stderr);
    let json: serde_json::Value = serde_json::from_str(&far.stdout).expect("JSON");
    assert!(json["deviation"]["logits"].as_f64().expect("a number") > 0.01, "{json}");
    assert_eq!(json["accepted"], false);
    call(&["verify", text(&rule), a, b, "--tolerance", "10"]).success();

    let stranger = golden("fusion/untied/parent_1");
    let called = call(&["verify", text(&exact), a, text(&stranger), "--tolerance", "10"]);
    assert!(called.stderr.contains("was not made from the weights"), "{}", called.stderr);
}

#[test]
fn a_fusion_is_measured_beside_a_copy() {
    let output = directory(&[]);
    let place = ["--directory", text(output.path())];
    let measured =
        call(&[&["bench", "fuse", "--model", "tiny", "--rounds", "2", "--json"], &place[..]].concat());
    let json: serde_json::Value = serde_json::from_str(&measured.success()).expect("JSON");
    assert!(json.is_object(), "{json}");
    let left = fs::read_dir(output.path()).expect("a directory").count();
    assert_eq!(left, 0, "nothing is left behind");
}
