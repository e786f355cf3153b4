use std::fmt::Debug;

use clap::ValueEnum;
use fusion_core::checkpoint::WeightType;
use fusion_core::plan::{Direction, Normalisation};
use glue_eval::{AtStep, Scoring};
use serde::Serialize;
use t5_model::method::{Arrangement, DepthAlignment, Method, NewBlocks};
use t5_model::optimizer::CarryOptimizer;
use t5_model::{Decay, Optimizer, Precision};

use crate::program::call;

/// Before any of the processes begins.
#[cfg(not(feature = "tch"))]
#[test]
fn processes_need_what_they_exchange_over() {
    let failed =
        call(&["launch", "--processes", "2", "--", "evaluate", "--model", "m", "--text", "t"]).failure();
    assert!(!failed.contains("rank ") && failed.contains("tch"), "{failed}");
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &["no-such-command"][..],
        &["backends", "--no-such-flag"],
        &["generate", "--model", "m", "--threads", "0"],
        &["generate", "--model", "m", "--threads", "many"],
        &["fuse", "a", "b"],
        &["fuse", "a", "b", "--output", "c", "--cross", "normal"],
        &["fuse", "a", "b", "--output", "c", "--cross", "relative:-1"],
        &[
            "pretrain",
            "--output",
            "o",
            "--text",
            "t",
            "--held-out-every",
            "9",
            "--tokenizer",
            "t",
            "--d-model",
            "8",
        ],
        &[
            "pretrain",
            "--output",
            "o",
            "--text",
            "t",
            "--held-out-every",
            "9",
            "--from",
            "m",
            "--d-model",
            "8",
        ],
    ] {
        let called = call(arguments);
        assert_eq!(called.code, Some(2), "{arguments:?}: {}", called.stderr);
        assert_eq!(called.stdout, "");
    }
}

/// Settings are called by the flags that set them.
#[test]
fn errors_name_flags() {
    let start = "pretrain --output o --text builtin:webster --held-out-every 9 --from m --tokenizer t";
    let cases = [
        (
            format!("{start} --batch-size 8 --micro-batch-size 3"),
            "--micro-batch-size: 3 does not divide --batch-size 8",
        ),
        (format!("{start} --steps 10 --warm-up 20"), "--warm-up: it is 20, but there are 10 steps in all"),
        (format!("{start} --learning-rate NaN"), "--learning-rate: NaN is not a rate of at least 0"),
        (format!("{start} --evaluate-every 0"), "--evaluate-every: it must be at least 1"),
        (
            format!("{start} --optimizer adafactor --weight-decay 0.1"),
            "--weight-decay: adafactor has no such setting",
        ),
        (
            format!("{start} --schedule constant --minimum-learning-rate 0.1"),
            "--minimum-learning-rate: constant has no such setting",
        ),
        (format!("{start} --timescale 9"), "--timescale: cosine has no such setting"),
        (format!("{start} --beta2 2"), "--beta2 is 2; it must be at least 0 and below 1"),
        ("glue --model m --glue g --epsilon 1".into(), "--epsilon: adafactor has no such setting"),
        ("glue --model m --glue g --seeds 0".into(), "--seeds: 0, must be at least 1"),
        (
            "generate --model m --beams 2 --top-k 3 x".into(),
            "--beams: beam search draws nothing, so it does not go with --top-k",
        ),
        ("check m --d-model 8".into(), "`--d-model` is not an option of method fuse"),
    ];
    let model = crate::program::golden("v1_1");
    let folder = crate::program::directory(&[]);
    for (words, expected) in cases {
        let arguments: Vec<&str> = words
            .split(' ')
            .map(|word| if word == "m" { crate::program::text(&model) } else { word })
            .collect();
        let refused = crate::program::call_in(folder.path(), &arguments).failure();
        assert!(refused.contains(expected), "{refused}");
    }
}

/// Where there is nobody to ask.
#[cfg(not(feature = "wgpu"))]
#[test]
fn what_is_missing_is_built_only_if_asked_for() {
    let refused = call(&["conformance", "--backend", "burn", "--device", "wgpu:0"]).failure();
    assert!(refused.contains("not built yet: burn on GPUs through wgpu (about ten minutes"), "{refused}");
    assert!(refused.contains("; needs a driver of Vulkan or Metal)"), "{refused}");
    assert!(refused.contains("error: --build builds it, and then runs the command"), "{refused}");
}

#[test]
fn backends_are_listed() {
    let text = call(&["backends", "--json"]).success();
    let backends: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let names = backends.as_array().expect("a list").iter().map(|backend| backend["name"].as_str());
    assert_eq!(names.flatten().any(|name| name == "burn"), cfg!(feature = "burn"));
}

/// `tag` is the key that holds the name in files, for values that are tables there.
fn takes_names_of_files<T: ValueEnum + Serialize + PartialEq + Debug>(tag: &str) {
    for value in T::value_variants() {
        let written = serde_json::to_value(value).expect("JSON");
        let name = written.as_str().or(written[tag].as_str()).expect("a name");
        assert_eq!(T::from_str(name, false).as_ref(), Ok(value));
    }
}

#[test]
fn commands_take_the_names_that_recipes_have() {
    takes_names_of_files::<Optimizer>("name");
    takes_names_of_files::<Decay>("kind");
    takes_names_of_files::<Precision>("");
    takes_names_of_files::<WeightType>("");
    takes_names_of_files::<Normalisation>("");
    takes_names_of_files::<Direction>("");
    takes_names_of_files::<Method>("");
    takes_names_of_files::<DepthAlignment>("");
    takes_names_of_files::<Arrangement>("");
    takes_names_of_files::<NewBlocks>("");
    takes_names_of_files::<CarryOptimizer>("");
    takes_names_of_files::<Scoring>("");
    takes_names_of_files::<AtStep>("");
}
