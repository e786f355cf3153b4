//! `[variables]` of recipes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{Called, call, call_in, directory};
use crate::recipes::letters;

const RECIPE: &str = r#"
[variables]
text = "a.txt"
every = 5
steps = 4
rate = 0.01
width = 8
size = "small"
optimizer = "adafactor"
kept = [1, 2]
carry = false
name = "model ${size} $${x}"

[data]
text = "${text}"
held_out_every = "${every}"
tokenizer = "words"
input_length = 16

[models.small]
d_model = "${width}"
num_heads = 2
d_kv = 4
d_ff = 16
num_layers = 1

[pretraining]
steps = "${steps}"
learning_rate = "${rate}"
batch_size = 2
evaluation_batches = 1
optimizer = "${optimizer}"

[stages.words]
kind = "tokenizer"
vocabulary = 300

[stages.a]
kind = "pretrain"
model = "${size}"
keep_steps = "${kept}"
carry_optimizer = "${carry}"
published = { accuracy = "${rate}", source = "${name}" }

[stages.b]
kind = "evaluate"
model = "a@${steps}"
examples = 4
"#;

fn run(folder: &Path, recipe: &str, more: &[&str]) -> Called {
    fs::write(folder.join("recipe.toml"), recipe).expect("written");
    call_in(folder, &[&["run", "recipe.toml", "--output", "out"], more].concat())
}

fn settings(folder: &Path, stage: &str) -> Value {
    let record = fs::read(folder.join("out").join(stage).join("stage.json")).expect("a record");
    serde_json::from_slice::<Value>(&record).expect("JSON")["settings"].take()
}

/// A run with variables is the run with their values, which alone decide what is out of date.
#[test]
fn values_count_and_not_their_names() {
    let folder = directory(&[("a.txt", &letters()), ("elsewhere/b.txt", &letters().to_uppercase())]);
    let run = |recipe: &str, more: &[&str]| run(folder.path(), recipe, more);
    run(RECIPE, &[]).success();
    let own = settings(folder.path(), "a");
    assert_eq!(
        (&own["steps"], &own["learning_rate"], &own["optimizer"]["name"]),
        (&4.into(), &0.01.into(), &"adafactor".into())
    );
    assert_eq!(own["keep_steps"], serde_json::json!([1, 2, 4]));
    assert_eq!(settings(folder.path(), "b")["model"], serde_json::json!({ "stage": "a", "step": 4 }));
    let file: Value = serde_json::from_slice(&fs::read(folder.path().join("out/run.json")).expect("written"))
        .expect("JSON");
    assert_eq!(file["stages"][1]["published"]["source"], "model small ${x}");

    // Another spelling of the same.
    let plain = RECIPE
        .replace("\"${steps}\"", "4")
        .replace("a@${steps}", "a@4")
        .replace("steps = 4\nrate", "rate")
        .replace("\"${kept}\"", "[1, 2]")
        .replace("kept = [1, 2]\n", "");
    assert!(!plain.contains("{steps}") && !plain.contains("{kept}"));
    let again = run(&plain, &[]);
    assert_eq!(again.stderr.matches("finished before").count(), 3, "{}", again.stderr);
    again.success();

    // Another value, whichever way it is given.
    for more in [["--var", "steps=5"], ["--set", "variables.steps=5"]] {
        let changed = run(RECIPE, &[&more[..], &["--dry-run"]].concat()).success();
        assert!(changed.contains("a: `steps` was 4, is 5"), "{changed}");
    }
    let changed = run(&RECIPE.replace("text = \"a.txt\"", "text = \"elsewhere\""), &["--dry-run"]).success();
    assert!(changed.contains("a: `data.text` was"), "{changed}");
}

/// A path is relative to where its variable says it, or the variable that it begins with.
#[test]
fn included_recipes_and_overrides_set_variables() {
    let folder = directory(&[
        ("base/base.toml", RECIPE),
        ("base/a.txt", &letters()),
        ("over.toml", "include = \"base/base.toml\"\n[variables]\nsteps = 7\n"),
        (
            "texts.toml",
            "include = \"over.toml\"\n[variables]\ntext = \"texts\"\n[data]\ntext = [\"${text}/b.txt\", \"base/a.txt\"]\n",
        ),
        ("texts/b.txt", &letters()),
        ("here/texts/b.txt", &letters()),
    ]);
    let plan = |recipe: &str, more: &[&str]| {
        let called = call_in(&folder.path().join("here"), &[&["run", recipe, "--plan"], more].concat());
        assert!(!called.stderr.contains("matches no file"), "{}", called.stderr);
        called.success()
    };
    let steps = |plan: &str| {
        let line = plan.lines().find(|line| line.starts_with("a ")).expect("the stage");
        line.split_whitespace().nth(4).map(str::to_owned)
    };
    assert_eq!(steps(&plan("../over.toml", &[])).as_deref(), Some("7"));
    assert_eq!(steps(&plan("../over.toml", &["--var", "steps=9"])).as_deref(), Some("9"));
    plan("../texts.toml", &[]);
    fs::remove_file(folder.path().join("texts/b.txt")).expect("removed");
    let missing = call_in(&folder.path().join("here"), &["run", "../texts.toml", "--plan"]);
    assert!(missing.stderr.contains("texts/b.txt` matches no file"), "{}", missing.stderr);
    plan("../texts.toml", &["--var", "text=texts"]);
}

#[test]
fn mistakes_name_their_place() {
    let folder = directory(&[("a.txt", &letters())]);
    let with = |from: &str, to: &str| {
        assert!(RECIPE.contains(from), "{from}");
        RECIPE.replacen(from, to, 1)
    };
    let cases: [(&str, String, &[&str]); 18] = [
        ("an unknown one", with("steps = \"${steps}\"", "steps = \"${stepz}\""), &[]),
        ("an unknown one within a text", with("a@${steps}", "a@${late}"), &[]),
        ("none at all", "[data]\ntext = \"${text}\"\n[stages.a]\nkind = \"fuse\"\n".to_owned(), &[]),
        ("unused", with("every = 5", "every = 5\nevry = 6"), &[]),
        ("unused, and like no other", with("every = 5", "every = 5\nmomentum = 0.9"), &[]),
        ("unused, from the command line", RECIPE.to_owned(), &["--var", "step=3"]),
        ("a circle", with("steps = 4", "steps = \"${a}\"\na = \"${b}\"\nb = \"${steps}\""), &[]),
        ("itself", with("size = \"small\"", "size = \"${size}\""), &[]),
        ("another type", with("steps = 4", "steps = \"many\""), &[]),
        ("another type, from the command line", RECIPE.to_owned(), &["--var", "steps=many"]),
        ("no value of the key", RECIPE.to_owned(), &["--var", "optimizer=adm"]),
        ("a list in a text", with("a@${steps}", "a@${kept}"), &[]),
        ("a table", with("size = \"small\"", "size = { a = 1 }"), &[]),
        ("no table", "variables = 3\n".to_owned() + &RECIPE.replacen("[variables]", "[models.x]", 1), &[]),
        ("not closed", with("a@${steps}", "a@${steps"), &[]),
        ("a name with a dot", with("size = \"small\"", "size = \"small\"\n\"a.b\" = 1"), &[]),
        ("in an include", format!("include = \"${{text}}.toml\"\n{RECIPE}"), &[]),
        ("no value", RECIPE.to_owned(), &["--var", "steps"]),
    ];
    let said = cases.map(|(name, recipe, more)| {
        format!("{name}\n{}\n", run(folder.path(), &recipe, &[&["--dry-run"], more].concat()).failure())
    });
    insta::assert_snapshot!(said.concat());
    // Each twice as long as the one before.
    let doubling: String =
        (1..40).map(|at| format!("v{at} = \"${{v{}}}${{v{}}}\"\n", at - 1, at - 1)).collect();
    let long = with("size = \"small\"", &format!("v0 = \"ab\"\n{doubling}size = \"${{v39}}\""));
    let refused = run(folder.path(), &long, &["--dry-run"]).failure();
    assert!(refused.contains("comes to more than 65536 characters"), "{refused}");
    let chain: String = (1..9999).map(|at| format!("v{at} = \"${{v{}}}\"\n", at + 1)).collect();
    let deep = with("size = \"small\"", &format!("size = \"${{v1}}\"\n{chain}v9999 = \"small\""));
    let refused = run(folder.path(), &deep, &["--dry-run"]).failure();
    assert!(refused.contains("variables use each other more than 64 deep"), "{refused}");
}

/// Where a number is wanted, editors take a number or a variable, and no other text.
#[test]
fn editors_take_variables() {
    let schema: Value = serde_json::from_str(&call(&["recipe", "schema"]).success()).expect("JSON");
    let pretraining = &schema["properties"]["pretraining"]["properties"];
    let variable = serde_json::json!({ "$ref": "#/definitions/variable" });
    for key in ["steps", "learning_rate", "carry_optimizer", "optimizer", "schedule", "keep_steps"] {
        let any = pretraining[key]["anyOf"].as_array().unwrap_or_else(|| panic!("{key}"));
        assert!(any.contains(&variable), "{key}");
        let is_text = |schema: &Value| schema["type"] == "string" && schema["enum"].is_null();
        assert!(!any.iter().any(is_text), "{key}");
    }
    let fusion = &schema["properties"]["stages"]["additionalProperties"]["oneOf"][2]["properties"];
    assert!(fusion["norm"]["anyOf"].as_array().is_some_and(|any| any.contains(&variable)), "{fusion}");
    let pattern = schema["definitions"]["variable"]["pattern"].as_str().expect("a pattern");
    assert_eq!(pattern, r"^\$\{[^}]+\}$");
}
