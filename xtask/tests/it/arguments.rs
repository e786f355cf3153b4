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
