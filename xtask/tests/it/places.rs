//! Where results are written: there, or nowhere, and never over what is not this program's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::program::{Called, call_in, directory, golden, text};
use crate::recipes::letters;

/// Every file below a directory, except for records.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() {
            let below = self::files(&path).into_iter();
            files.extend(below.map(|(below, content)| (format!("{name}/{below}"), content)));
        } else if name != ".deep-fusion.json" {
            files.insert(name, fs::read(&path).unwrap_or_default());
        }
    }
    files
}

fn copy_model(name: &str, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden(name).join(file), to.join(file)).expect("copied");
    }
}

/// A user's folder with the models `a` and `b`.
fn models() -> tempfile::TempDir {
    let folder = directory(&[]);
    copy_model("fusion/untied/parent_0", &folder.path().join("a"));
    copy_model("fusion/untied/parent_1", &folder.path().join("b"));
    folder
}

/// The commands that write a checkpoint.
const COMMANDS: [&[&str]; 3] = [&["fuse", "a", "b"], &["convert", "a"], &["export", "a"]];

fn to(folder: &Path, command: &[&str], output: &str, more: &[&str]) -> Called {
    call_in(folder, &[command, &["--output", output], more].concat())
}

#[test]
fn every_name_of_a_directory_is_one() {
    for command in COMMANDS {
        let folder = models();
        let at = |name: &str| folder.path().join(name);
        to(folder.path(), command, "plain", &[]).success();
        let expected: Vec<String> = files(&at("plain")).into_keys().collect();
        fs::create_dir_all(at("store/out")).expect("a directory");
        fs::create_dir_all(at("repository/.git")).expect("a directory");
        symlink("store/out", at("link")).expect("a link");
        for output in ["slash/", "link", "new/../a/../dotted", "repository", "deep/er"] {
            if output.starts_with("new") {
                fs::create_dir(at("new")).expect("a directory");
            }
            to(folder.path(), command, output, &[]).success();
            assert_eq!(files(&at(output)).into_keys().collect::<Vec<_>>(), expected, "{command:?} {output}");
            let again = to(folder.path(), command, output, &[]).failure();
            assert!(again.contains("exists and is not empty; --overwrite replaces"), "{again}");
            to(folder.path(), command, output, &["--overwrite"]).success();
        }
        assert!(at("link").is_symlink());
        fs::create_dir(at("here")).expect("a directory");
        let here: Vec<String> = command
            .iter()
            .map(|word| if word.len() == 1 { format!("../{word}") } else { word.to_string() })
            .collect();
        let here: Vec<&str> = here.iter().map(String::as_str).collect();
        let name: &[&str] = if command[0] == "export" { &["--name", "x"] } else { &[] };
        to(&at("here"), &here, ".", name).success();
        to(&at("here"), &here, ".", &[name, &["--overwrite"]].concat()).success();
        assert_eq!(files(&at("here")).into_keys().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn what_is_not_this_programs_is_kept() {
    for command in COMMANDS {
        let folder = models();
        let child = folder.path().join("child");
        to(folder.path(), &["fuse", "a", "b"], "child", &[]).success();
        let own =
            [("NOTES.md", "mine"), (".git/HEAD", "mine"), ("training_log.csv", "mine"), ("deeper/x", "mine")];
        for (name, content) in own {
            fs::create_dir_all(child.join(name).parent().expect("a parent")).expect("a directory");
            fs::write(child.join(name), content).expect("written");
        }
        to(folder.path(), command, "child", &["--overwrite"]).success();
        let written = files(&child);
        for (name, content) in own {
            assert_eq!(written.get(name).map(Vec::as_slice), Some(content.as_bytes()), "{command:?} {name}");
        }
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_the_work() {
    let folder = models();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "mine").expect("written");
    symlink("nowhere", at("broken")).expect("a link");
    symlink("a", at("parent")).expect("a link");
    let own = directory(&[("own/notes", "mine")]);
    let theirs = own.path().join("own");
    copy_model("fusion/untied/parent_0", &at("theirs"));
    to(folder.path(), COMMANDS[0], "edited", &[]).success();
    fs::write(at("edited/config.json"), "{}").expect("written");
    to(folder.path(), COMMANDS[0], "added", &[]).success();
    fs::write(at("added/generation_config.json"), "{}").expect("written");
    to(folder.path(), COMMANDS[1], "card", &[]).success();
    fs::write(at("card/README.md"), "mine").expect("written");
    let mut messages = String::new();
    let before = files(folder.path());
    for output in
        ["file", "file/x", "broken", "a", "parent", text(&theirs), "theirs", "edited", "added", "missing/.."]
    {
        for command in COMMANDS {
            // Nothing was begun: there is no sign of progress.
            let refused = to(folder.path(), command, output, &["--overwrite"]).failure();
            messages += &format!("{} {output}: {refused}", command[0]);
        }
    }
    messages +=
        &format!("export card: {}", to(folder.path(), COMMANDS[2], "card", &["--overwrite"]).failure());
    assert_eq!(files(folder.path()), before);
    insta::assert_snapshot!(messages.replace(text(&theirs), "OWN").replace(text(folder.path()), "DIR"));
}

#[test]
fn a_child_beside_or_below_its_parents_leaves_them_alone() {
    let folder = models();
    let before = files(folder.path());
    to(folder.path(), COMMANDS[0], "a/child", &[]).success();
    to(folder.path(), COMMANDS[0], "a/child", &["--overwrite"]).success();
    let mut after = files(folder.path());
    after.retain(|name, _| !name.starts_with("a/child/"));
    assert_eq!(after, before);
    // The parents are inside of what is overwritten.
    to(folder.path(), COMMANDS[0], "out", &[]).success();
    fs::rename(folder.path().join("b"), folder.path().join("out/b")).expect("moved");
    to(folder.path(), &["fuse", "a", "out/b"], "out", &["--overwrite"]).success();
    assert_eq!(files(&folder.path().join("out/b")).len(), 2);
}

fn paragraphs() -> String {
    letters().replace('\n', "\n\n")
}

const RECIPE: &str = r#"
[data]
text = "a.txt"
held_out_every = 5
tokenizer = "words"
input_length = 16

[models.tiny]
d_model = 8
num_heads = 1
d_kv = 8
d_ff = 8
num_layers = 1

[pretraining]
steps = STEPS
batch_size = 2
schedule = { peak = 0.01, warm_up = 0, decay = { kind = "cosine", minimum = 1e-5 } }
evaluate_every = 10
evaluation_batches = 1
checkpoint_every = 1
keep_checkpoints = 1

[stages.words]
kind = "tokenizer"
vocabulary = 200

[stages.small]
kind = "pretrain"
model = "tiny"

[stages.grown]
kind = "fuse"
parents = ["small"]
times = 2
"#;

#[test]
fn runs_keep_what_is_not_theirs() {
    let folder = directory(&[("a.txt", &paragraphs())]);
    let at = |name: &str| folder.path().join(name);
    let run = |steps: &str, output: &str, more: &[&str]| {
        fs::write(at("recipe.toml"), RECIPE.replace("STEPS", steps)).expect("written");
        call_in(folder.path(), &[&["run", "recipe.toml", "--output", output], more].concat())
    };
    run("2", "out", &[]).success();
    let first = files(&at("out"));
    let own =
        ["notes", "small/notes", "small/model/notes", "small/checkpoints/step-00000001/notes", "grown/a/b"];
    for name in own {
        fs::create_dir_all(at("out").join(name).parent().expect("a parent")).expect("a directory");
        fs::write(at("out").join(name), "mine").expect("written");
    }
    // A file that was edited is no longer this program's.
    fs::write(at("out/grown/plan.txt"), "mine").expect("written");
    let again = run("3", "out", &["--redo"]).failure();
    assert!(again.contains("small: kept what this program did not write in out/small"), "{again}");
    assert!(again.contains("out/grown/plan.txt was not written by this program"), "{again}");
    fs::rename(at("out/grown/plan.txt"), at("out/grown/plan")).expect("moved");
    run("3", "out", &["--redo"]).success();
    let mut second = files(&at("out"));
    for name in own.iter().chain(&["grown/plan"]) {
        assert_eq!(second.remove(*name).as_deref(), Some(&b"mine"[..]), "{name}");
    }
    let names = |files: &BTreeMap<String, Vec<u8>>| {
        let stable = files.keys().filter(|name| !name.contains("tfevents") && !name.contains("checkpoints"));
        stable.cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(&second), names(&first));
    for (name, refused) in [("report.md", "report.md"), ("small/x", "small")] {
        let output = directory(&[(name, "mine")]);
        let message = run("2", text(output.path()), &[]).failure();
        assert!(message.contains(&format!("{refused} was not written by this program")), "{message}");
        assert_eq!(
            files(output.path()).into_iter().collect::<Vec<_>>(),
            [(name.to_owned(), b"mine".to_vec())]
        );
    }
}

#[test]
fn trainings_keep_what_is_not_theirs() {
    let folder = directory(&[("a.txt", &paragraphs()), ("recipe.toml", &RECIPE.replace("STEPS", "1"))]);
    call_in(folder.path(), &["run", "recipe.toml", "--output", "out"]).success();
    let pretrain = |output: &str| {
        let from = ["pretrain", "--from", "out/small/model", "--text", "a.txt", "--held-out-every", "5"];
        let how = ["--input-length", "16", "--steps", "1", "--batch-size", "2", "--output", output];
        call_in(folder.path(), &[&from[..], &how].concat())
    };
    for (name, refused) in
        [("metrics.jsonl", "metrics.jsonl"), ("model/config.json", "model"), ("checkpoints/x", "checkpoints")]
    {
        let output = directory(&[(name, "mine")]);
        let message = pretrain(text(output.path())).failure();
        assert!(message.contains(&format!("{refused} was not written by this program")), "{message}");
        assert_eq!(
            files(output.path()).into_iter().collect::<Vec<_>>(),
            [(name.to_owned(), b"mine".to_vec())]
        );
    }
    let output = directory(&[("notes", "mine")]);
    pretrain(text(output.path())).success();
    pretrain(text(output.path())).success();
    assert_eq!(fs::read(output.path().join("notes")).expect("kept"), b"mine");

    let rows = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n";
    let glue = directory(&[("RTE/train.tsv", rows), ("RTE/dev.tsv", rows)]);
    let output = directory(&[("table.md", "mine")]);
    let tune = |output: &Path| {
        let what = ["glue", "--model", "out/small/model", "--glue", text(glue.path()), "--tasks", "rte"];
        let how = ["--steps", "1", "--batch-size", "1", "--output", text(output)];
        call_in(folder.path(), &[&what[..], &how].concat())
    };
    let message = tune(output.path()).failure();
    assert!(message.contains("table.md was not written by this program"), "{message}");
    fs::rename(output.path().join("table.md"), output.path().join("notes.md")).expect("moved");
    tune(output.path()).success();
    tune(output.path()).success();
    assert_eq!(fs::read(output.path().join("notes.md")).expect("kept"), b"mine");
}
