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
