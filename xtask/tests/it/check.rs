//! What is reported about a fusion before it runs.

use std::fs;

use crate::program::{call, directory, golden, text};

#[test]
fn what_a_fusion_would_make_and_need() {
    let (deep, shallow) = (golden("fusion/untied/parent_0"), golden("fusion/untied/parent_unequal"));
    let parents = [text(&deep), text(&shallow)];
    let call = |more: &[&str]| call(&[&["check"], &parents[..], more].concat());
    let outlook = call(&[]).success();
    let (before, after) = outlook.split_once("Memory: ").expect("memory");
    let (threads, after) =
        after.split_once(" to fuse").expect("memory of the fusion, which the threads decide");
    assert!(threads.ends_with("MB"), "{threads}");
    insta::assert_snapshot!("outlook", format!("{before}Memory: … to fuse{after}"));
    let exact = |more: &[&str]| {
        let output = directory(&[]);
        let child = output.path().join("not/yet");
        let json = call(&[&["--json", "--output", text(&child)], more].concat()).success();
        assert!(!child.exists(), "nothing is written");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert!(json["outlook"]["free"].as_u64().is_some_and(|free| free > 0), "{json}");
        json["outlook"]["promise"].as_str().map(str::to_owned).expect("a promise")
    };
    assert_eq!(exact(&[]), "ensemble");
    assert_eq!(exact(&["--norm", "rule"]), "rule");
    assert_eq!(exact(&["--cross", "db:40"]), "noisy");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let parent = golden("fusion/untied/parent_0");
    let other = golden("v1_0");
    let broken = directory(&[("config.json", "{"), ("taken/notes.txt", "mine")]);
    let taken = broken.path().join("taken");
    let called = call(&[
        "check",
        text(&parent),
        "/no/such/model",
        text(broken.path()),
        "--arrangement",
        "repeat",
        "--output",
        text(&taken),
    ]);
    let refused = called.failure();
    for problem in
        ["exists and is not empty", "`--arrangement` is not an option", "/no/such/model", "config.json"]
    {
        assert!(refused.contains(problem), "{problem}: {refused}");
    }
    let refused = call(&["check", text(&parent), text(&other), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&refused.stdout).expect("JSON");
    assert!(
        json["outlook"].is_null()
            && json["refused"].as_str().is_some_and(|why| why.contains("no weights make")),
        "{json}"
    );
    assert_eq!(refused.code, Some(1));
    assert!(fs::exists(taken.join("notes.txt")).expect("readable"));
}
