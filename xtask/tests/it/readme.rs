//! The README's commands work when they are pasted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::program::{PROGRAM, directory};

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    fs::read_to_string(path).expect("the README")
}

/// The commands of a section.
fn commands(section: &str) -> String {
    let readme = readme();
    let (_, rest) = readme.split_once(&format!("## {section}\n")).expect("the section");
    let (_, block) = rest.split_once("```sh\n").expect("commands");
    block.split_once("```").expect("the end of the commands").0.to_owned()
}

#[test]
fn the_way_from_text_to_scores() {
    // Two hundred words of two syllables: a text from which a vocabulary can be made.
    let syllables = ["ba", "ke", "lo", "mi", "nu", "ra", "so", "ti", "vu", "we", "ya", "zo", "pe", "do"];
    let word = |at: usize| [syllables[at % 14], syllables[at / 14 % 14]].concat();
    let document =
        |at: usize| (0..90).map(|place| word(at * 31 + place * place + at * place)).collect::<Vec<_>>();
    let line = |at: usize| format!("{}\n", json!({ "text": document(at).join(" ") }));
    let text: String = (0..300).map(line).collect();
    let rows = "index\tsentence1\tsentence2\tlabel\n0\tIt rains.\tIt is wet.\tentailment\n1\tIt rains.\tIt is dry.\tnot_entailment\n";
    let folder =
        directory(&[("glue/RTE/train.tsv", rows), ("glue/RTE/dev.tsv", rows), ("texts/all.jsonl", &text)]);
    let path = |name: &str| folder.path().join(name);
    // `cargo xtask` as this build.
    fs::write(path("cargo"), format!("#!/bin/sh\nshift\nexec '{PROGRAM}' \"$@\"\n")).expect("written");
    fs::set_permissions(path("cargo"), fs::Permissions::from_mode(0o755)).expect("executable");
    let programs = std::env::var("PATH").unwrap_or_default();
    let pasted = Command::new("bash")
        .args(["-euc", &commands("Use your own text and models")])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{programs}", folder.path().display()))
        .envs([
            ("TEXT", "texts"),
            ("VOCABULARY", "250"),
            ("STEPS", "4"),
            ("GLUE", "glue"),
            ("TASK_STEPS", "2"),
        ])
        .output()
        .expect("bash");
    let errors = String::from_utf8_lossy(&pasted.stderr);
    assert!(pasted.status.success(), "{errors}");
    for made in ["vocabulary/tokenizer.json", "small-b/model", "small-a/tensorboard", "fused/lineage.json"] {
        assert!(path(made).exists(), "{made}\n{errors}");
    }
    for made in ["large/metrics.jsonl", "large-glue/table.md", "large-glue/glue.json", "my-t5/README.md"] {
        assert!(path(made).exists(), "{made}\n{errors}");
    }
}

/// What a reader cannot find is not worth naming.
#[test]
fn links_lead_to_files() {
    let readme = readme();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let targets =
        readme.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let local = targets.filter(|target| !target.starts_with("http")).collect::<Vec<_>>();
    assert!(local.len() > 10);
    for target in local {
        let file = target.split_once('#').map_or(target, |(file, _)| file);
        assert!(root.join(file).exists(), "{target}");
    }
}
