//! What is said about a recipe before it runs, in plain words.

use std::fs;

use crate::program::{call_in, directory, text};
use crate::recipes::letters;

const DATA: &str =
    "[data]\ntext = \"a.txt\"\nheld_out_every = 5\ntokenizer = \"words\"\ninput_length = 16\n\n";
const MODELS: &str = "[models.small]\nd_model = 8\nnum_heads = 2\nd_kv = 4\nd_ff = 16\nnum_layers = 1\n\n";
const WORDS: &str = "[stages.words]\nkind = \"tokenizer\"\nvocabulary = 300\n\n";
const TRAINING: &str = "[pretraining]\nsteps = 3\nbatch_size = 2\nevaluation_batches = 1\n\n";
const STAGE: &str = "[stages.aa]\nkind = \"pretrain\"\nmodel = \"small\"\n\n";

fn recipe() -> String {
    [DATA, MODELS, TRAINING, WORDS, STAGE].concat()
}

/// What is said of a recipe with these overrides.
fn said(recipe: &str, sets: &[&str]) -> String {
    let folder = directory(&[("recipe.toml", recipe), ("a.txt", &letters())]);
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> = ["run", "recipe.toml", "--dry-run"].into_iter().chain(sets).collect();
    let called = call_in(folder.path(), &arguments);
    (called.stderr + &called.stdout).replace(text(folder.path()), "…")
}

#[test]
fn mistakes_are_named_in_plain_words() {
    let mistakes: &[&[&str]] = &[
        &["stages.a.steps=4"],
        &["stages.other.steps=4"],
        &["models.smal.d_model=16"],
        &["steps=4"],
        &["pretraining.text=b.txt"],
        &["fine_tuning.stepz=4"],
        &["pretraining.optimizer=adam"],
        &["pretraining.optimizer=3"],
        &["pretraining.optimizer.name=adam"],
        &["pretraining.optimizer.decay=0.1"],
        &["pretraining.optimizer=adafactor", "pretraining.optimizer.weight_decay=0.1"],
        &["pretraining.schedule.kind=linearly"],
        &["pretraining.schedule.minimum=small"],
        &["pretraining.warm_up=-1"],
        &["pretraining.steps=1e3"],
        &["pretraining.steps=99999999999999999999"],
        &["pretraining.keep_optimizer=yes"],
        &["pretraining.threads=0"],
        &["pretraining.warm_up=9"],
        &["data.held_out_every=0"],
        &["data.text=3"],
        &["data=a.txt"],
        &["comparison.baseline=aa"],
        &["compute.device=3"],
        &["stages.aa.kind=train"],
        &["stages.aa.precision=fp16"],
        &["pretraining.stepz=3", "stages.aa.batch=4", "data.txt=3"],
    ];
    let said = mistakes.iter().map(|sets| format!("{}\n{}", sets.join(" "), said(&recipe(), sets)));
    insta::assert_snapshot!(said.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_recipe_without_stages_is_refused() {
    assert!(said("", &[]).contains("recipe.toml has no stages"));
    assert!(said(DATA, &[]).contains("recipe.toml has no stages"));
    let stray = said("[stages.a]\nsteps = 3\n[stages.aa]\nkind = \"fuse\"\nparents = [\"a\"]\n", &[]);
    assert!(stray.contains("stage \"a\" has no `kind`"), "{stray}");
}

/// One key of a training is enough, and all ways of writing the same are the same.
#[test]
fn a_setting_can_be_written_in_several_ways() {
    let folder = directory(&[("a.txt", &letters()), ("recipe.toml", &recipe())]);
    let run = |recipe: &str, sets: &[&str], more: &[&str]| {
        fs::write(folder.path().join("recipe.toml"), recipe).expect("written");
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        let arguments: Vec<&str> =
            ["run", "recipe.toml", "--output", "out"].into_iter().chain(sets).collect();
        call_in(folder.path(), &[&arguments, more].concat())
    };
    let base = [DATA, MODELS, WORDS, STAGE].concat();
    let few = ["pretraining.steps=20", "pretraining.batch_size=2", "pretraining.evaluation_batches=1"];
    run(&base, &few, &[]).success();
    let same: &[&[&str]] = &[
        &[],
        &["pretraining.warm_up=2"],
        &["pretraining.optimizer=adamw-scale", "pretraining.schedule=Cosine"],
        &["pretraining.optimizer={name=\"adamw_scale\"}", "pretraining.schedule.kind=cosine"],
        &["pretraining.optimizer.beta1=0.9", "pretraining.schedule.minimum=1e-5"],
        &["pretraining.schedule={peak=0.02,warm_up=2,decay={kind=\"cosine\",minimum=1e-5}}"],
        &["pretraining.schedule.peak=0.02", "pretraining.learning_rate=0.02"],
        &["stages.aa.schedule.peak=0.02", "stages.aa.schedule.decay=cosine"],
        &["pretraining.schedule.offset=0", "stages.aa.optimizer=AdamW_scale"],
    ];
    for more in same {
        let sets = [&few[..], more].concat();
        let said = run(&base, &sets, &[]).stderr;
        assert!(said.contains("aa: finished before\n"), "{more:?}: {said}");
    }
    let other = run(&base, &[&few[..], &["pretraining.steps=40"]].concat(), &[]).failure();
    assert!(other.contains("out of date: `steps` was 20, is 40; "), "{other}");
    let other = run(&base, &[&few[..], &["pretraining.schedule.peak=0.01"]].concat(), &[]).failure();
    assert!(other.contains("out of date: `learning_rate` was 0.02, is 0.01; "), "{other}");
}

/// Nothing that cannot change a finished stage's weights makes it or its children out of date.
#[test]
fn what_changes_no_weight_outdates_nothing() {
    let child = "[stages.on]\nkind = \"pretrain\"\nfrom = \"aa\"\n\n";
    let folder = directory(&[("a.txt", &letters()), ("b.txt", &letters())]);
    let run = |recipe: &str, sets: &[&str]| {
        fs::write(folder.path().join("recipe.toml"), recipe).expect("written");
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        let arguments: Vec<&str> =
            ["run", "recipe.toml", "--output", "out"].into_iter().chain(sets).collect();
        call_in(folder.path(), &arguments)
    };
    let base = recipe() + child;
    let texts = base.replace("held_out_every = 5", "held_out_text = \"b.txt\"");
    run(&texts, &[]).success();
    for set in [
        "pretraining.checkpoint_every=1",
        "pretraining.log_every=1",
        "pretraining.micro_batch_size=1",
        "pretraining.keep_checkpoints=1",
        "compute.threads=1",
        "stages.aa.threads=1",
    ] {
        let said = run(&texts, &[set]).stderr;
        assert!(
            said.contains("aa: finished before\n") && said.contains("on: finished before\n"),
            "{set}: {said}"
        );
    }
    let said = run(&texts, &["stages.aa.evaluate_every=1", "stages.aa.evaluation_batches=2"]).stderr;
    let measured = "aa: finished before, with other evaluations: `evaluate_every` was 2000, is 1; \
                    `evaluation_batches` was 1, is 2\n";
    assert!(said.contains(measured) && said.contains("on: finished before\n"), "{said}");
    fs::write(folder.path().join("c.txt"), letters()).expect("written");
    let said = run(&texts, &["data.held_out_text=c.txt"]).stderr;
    assert!(said.contains("aa: finished before, with other evaluations: `data.held_out.text"), "{said}");
    for (set, reason) in [
        ("stages.aa.seed=1", "`seed` was 0, is 1"),
        ("stages.aa.data.input_length=20", "`data.input_length` was 16, is 20"),
        ("stages.aa.keep_optimizer=true", "`keep_optimizer` was false, is true"),
    ] {
        let refused = run(&texts, &[set]).failure();
        assert!(refused.contains(reason), "{set}: {refused}");
    }
}

/// What an earlier version finished is not out of date because settings were called otherwise.
#[test]
fn results_of_earlier_versions_are_kept() {
    let child = "[stages.on]\nkind = \"pretrain\"\nfrom = \"aa\"\n\n";
    let folder = directory(&[("a.txt", &letters()), ("recipe.toml", &(recipe() + child))]);
    let run = || call_in(folder.path(), &["run", "recipe.toml", "--output", "out"]);
    run().success();
    let path = |stage: &str| folder.path().join("out").join(stage).join("stage.json");
    let read = |stage: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path(stage)).expect("a record")).expect("JSON")
    };
    let mut earlier = std::collections::BTreeMap::new();
    for stage in ["words", "aa", "on"] {
        let mut record = read(stage);
        if stage != "words" {
            let settings = record["settings"].as_object_mut().expect("settings");
            let schedule = settings.remove("schedule").expect("a schedule");
            settings.insert(
                "schedule".into(),
                serde_json::json!({
                    "peak": settings["learning_rate"], "warm_up": settings["warm_up"], "warm_up_from": 0.0,
                    "decay": schedule, "cycles": 1, "offset": 0, "re_warm_up": 0,
                }),
            );
            for key in ["learning_rate", "warm_up", "warm_up_from", "cycles", "schedule_offset", "re_warm_up"]
            {
                settings.remove(key);
            }
        }
        // Fingerprints were those of everything recorded.
        for (name, fingerprint) in record["inputs"].as_object_mut().expect("inputs") {
            *fingerprint = serde_json::json!(earlier[name.as_str()]);
        }
        let identity = serde_json::json!({ "settings": record["settings"], "inputs": record["inputs"] });
        earlier.insert(stage, crate::program::sha256(&serde_json::to_vec(&identity).expect("JSON")));
        fs::write(path(stage), serde_json::to_vec(&record).expect("JSON")).expect("written");
    }
    let said = run().stderr;
    for stage in ["words", "aa", "on"] {
        assert!(said.contains(&format!("{stage}: finished before\n")), "{said}");
    }
}

/// An interrupted training's time is that of all processes, and the report says what was left out.
#[test]
fn reports_tell_what_was_left_out() {
    let glue = "[stages.scored]\nkind = \"glue\"\nmodel = \"aa\"\n\n[stages.more]\nkind = \"pretrain\"\nfrom = \"aa\"\n";
    let folder = directory(&[("a.txt", &letters()), ("recipe.toml", &(recipe() + glue))]);
    let run = ["run", "recipe.toml", "--output", "out", "--only", "aa", "--only", "scored"];
    let report = call_in(folder.path(), &run).success();
    let line = |name: &str| {
        report.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{report}")).to_owned()
    };
    assert!(line("scored").ends_with("left out (no GLUE)"), "{report}");
    assert!(line("more").ends_with("left out"), "{report}");
    // As a process leaves it that was killed a minute ago, after 100 seconds of work.
    let begun = fs::read(folder.path().join("out/aa/begun.json")).expect("a file");
    fs::remove_file(folder.path().join("out/aa/stage.json")).expect("removed");
    fs::write(folder.path().join("out/aa/time.json"), r#"[{"began": 1000, "seconds": 100.0}]"#)
        .expect("written");
    assert!(!begun.is_empty());
    let report = call_in(folder.path(), &run).success();
    let line = report.lines().find(|line| line.starts_with("aa ")).expect("the stage");
    assert!(
        line.ends_with("1 min 40 s") || line.ends_with("1 min 41 s") || line.ends_with("1 min 42 s"),
        "{line}"
    );
}

#[test]
fn each_stage_computes_on_what_it_names() {
    let stage = "[compute]\nthreads = 1\n[stages.b]\nkind = \"pretrain\"\nmodel = \"small\"\ndevice = \"no-such\"\n\
                 [stages.c]\nkind = \"pretrain\"\nmodel = \"small\"\nbackend = \"burn\"\ndata.input_length = 32\n";
    let folder = directory(&[("a.txt", &letters()), ("recipe.toml", &(recipe() + stage))]);
    let run =
        |more: &[&str]| call_in(folder.path(), &[&["run", "recipe.toml", "--output", "out"], more].concat());
    let plan = run(&["--plan"]);
    assert!(plan.stderr.contains("b: warning: it cannot run here: "), "{}", plan.stderr);
    let plan = plan.success();
    let row = |name: &str| plan.lines().find(|line| line.starts_with(name)).expect("a stage").to_owned();
    assert!(row("b ").contains("burn no-such") && row("c ").contains("burn cpu"), "{plan}");
    let refused = run(&[]).failure();
    assert!(refused.contains("stage \"b\" will fail") && refused.contains("no-such"), "{refused}");
    assert!(!folder.path().join("out").exists());
    // The command line is stronger than the recipe.
    run(&["--device", "cpu", "--threads", "2"]).success();
    let unknown = run(&[
        "--only",
        "b",
        "--redo",
        "--set",
        "stages.b={kind=\"pretrain\",model=\"small\",backend=\"nothing\",steps=2}",
    ])
    .failure();
    assert!(unknown.contains("nothing"), "{unknown}");
}

/// Text is looked for before the first stage runs, and trained text is told from held-out text.
#[test]
fn texts_are_found_before_a_run() {
    let folder = directory(&[
        ("a.txt", &letters()),
        ("news/train.txt", &letters()),
        ("news/held-out.txt", "one\n\ntwo words\n\nthree of them\n"),
        ("books/train.txt", &letters().to_uppercase()),
        ("books/held-out.txt", "ONE\n\nTWO\n"),
        ("copies/copy.txt", &letters()),
        ("empty.txt", "\n\n"),
        ("one.txt", "a single document\n"),
    ]);
    let plan = |recipe: &str| {
        fs::write(folder.path().join("recipe.toml"), recipe).expect("written");
        let called = call_in(folder.path(), &["run", "recipe.toml", "--dry-run"]);
        called.stderr.replace(text(folder.path()), "…")
    };
    let base = recipe();
    let parents = |a: &str, b: &str| {
        format!(
            "[stages.b]\nkind = \"pretrain\"\nmodel = \"small\"\nseed = 2\n{b}\n[stages.ab]\nkind = \"fuse\"\n\
             parents = [\"aa\", \"b\"]\n[stages.on]\nkind = \"pretrain\"\nfrom = \"ab\"\n{a}\n"
        )
    };
    let cases = [
        ("sound", base.clone()),
        ("not there", base.replace("a.txt", "nowhere/*.json.gz")),
        ("of one stage", base.clone() + &parents("", "data.text = \"nowhere.txt\"")),
        ("empty", base.replace("a.txt", "empty.txt")),
        ("all of it is held out", base.replace("a.txt", "one.txt")),
        ("nothing is held out", base.replace("held_out_every = 5", "held_out_text = \"empty.txt\"")),
        ("the same file", base.replace("held_out_every = 5", "held_out_text = \"a.txt\"")),
        ("a copy", base.replace("held_out_every = 5", "held_out_text = \"copies\"")),
        ("of a parent", base.clone() + &parents("data.held_out_text = \"news\"", "data.text = \"news\"")),
        ("another share", base.clone() + &parents("data.held_out_every = 7", "")),
        ("a multiple", base.clone() + &parents("data.held_out_every = 10", "")),
        ("another place", base.clone() + &parents("data.text = [\"books/train.txt\", \"a.txt\"]", "")),
        (
            "another vocabulary",
            base.clone()
                + "[stages.others]\nkind = \"tokenizer\"\nvocabulary = 299\n"
                + &parents("", "data.tokenizer = \"others\""),
        ),
        (
            "a vocabulary of its own",
            base.clone()
                + &parents("data.tokenizer = \"more\"", "")
                + "[stages.more]\nkind = \"tokenizer\"\nvocabulary = 301\n",
        ),
    ];
    let said: String = cases.iter().map(|(name, recipe)| format!("{name}\n{}\n", plan(recipe))).collect();
    insta::assert_snapshot!(said);
    let glue = base + "[stages.scored]\nkind = \"glue\"\nmodel = \"aa\"\ntasks = [\"rte\"]\n";
    fs::write(folder.path().join("recipe.toml"), glue).expect("written");
    let missing = call_in(folder.path(), &["run", "recipe.toml", "--dry-run", "--glue", "news"]).failure();
    assert!(missing.contains("stage \"scored\" will fail") && missing.contains("RTE"), "{missing}");
}

/// The example of parents with texts of their own runs on anyone's texts.
#[test]
fn parents_are_trained_on_texts_of_their_own() {
    let recipe = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../recipes/two-texts.toml"));
    let folder = directory(&[
        ("recipe.toml", &recipe.expect("a recipe of the project")),
        ("news/train/a.txt", &letters()),
        ("news/held-out/a.txt", "a few\n\nother words ab abx\n\nfor the evaluation\n"),
        ("books/train/a.txt", &letters().replace('x', "y")),
        ("books/held-out/a.txt", "more of them aby abba bccb\n\nand cde\n"),
    ]);
    let sets = [
        "pretraining.steps=2",
        "pretraining.batch_size=2",
        "pretraining.evaluation_batches=1",
        "data.input_length=16",
        "stages.vocabulary.vocabulary=300",
    ];
    let sets = sets.iter().flat_map(|set| ["--set", *set]);
    let arguments: Vec<&str> = ["run", "recipe.toml", "--output", "out"].into_iter().chain(sets).collect();
    let called = call_in(folder.path(), &arguments);
    assert!(!called.stderr.contains("held out, but"), "{}", called.stderr);
    let report = called.success();
    assert!(report.contains("specialists") && report.contains("differ in nothing else"), "{report}");
    let trained_on = |stage: &str| {
        let path = folder.path().join("out").join(stage).join("stage.json");
        let record: serde_json::Value =
            serde_json::from_slice(&fs::read(path).expect("a record")).expect("JSON");
        record["settings"]["data"]["text"].as_array().expect("texts").len()
    };
    assert_eq!(["small-a", "mixed-a", "specialists"].map(trained_on), [1, 2, 2]);
}
