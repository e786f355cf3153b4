//! The recipes of the paper's experiments, at its sizes and small.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{Called, call_in, call_with, directory, text};
use crate::recipes::letters;

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes")
}

/// Plans a recipe without a network, text or tokenizer.
fn plan(recipe: &str, more: &[&str]) -> Called {
    let folder = directory(&[]);
    let path = recipes().join(recipe);
    let arguments = [&["run", text(&path), "--plan", "--output", "/no/such/run"], more].concat();
    call_with(folder.path(), &arguments, &[("HF_HUB_OFFLINE", "1"), ("HF_HOME", text(folder.path()))])
}

/// The rows of a plan, by columns.
fn rows(plan: &str) -> Vec<(String, String, String)> {
    let lines = plan.lines().skip_while(|line| !line.starts_with("stage ")).skip(1);
    let cells = |line: &str| -> Option<(String, String, String)> {
        let mut cells = line.split_whitespace().map(str::to_owned);
        let (name, kind) = (cells.next()?, cells.next()?);
        Some((name, kind, cells.nth(2).unwrap_or_default()))
    };
    lines.filter_map(cells).collect()
}

/// Every recipe that is not only a part of others.
#[test]
fn every_recipe_is_sound() {
    let parts =
        ["graphs", "paper/t5x.toml", "paper/table-6.toml", "small/scale.toml", "small/scale-256.toml"];
    let mut found = Vec::new();
    for folder in ["", "paper", "small"] {
        for entry in fs::read_dir(recipes().join(folder)).expect("a folder").flatten() {
            let name = Path::new(folder).join(entry.file_name());
            let is_recipe = name.extension().is_some_and(|extension| extension == "toml");
            if is_recipe && !parts.iter().any(|part| name == Path::new(part)) {
                found.push(name);
            }
        }
    }
    assert!(found.len() > 15, "{found:?}");
    let index = fs::read_to_string(recipes().join("README.md")).expect("an index");
    for recipe in &found {
        let recipe = text(recipe);
        // Its tokenizer is a file of the user's.
        let more: &[&str] = if recipe == "english.toml" { &["--set", "data.tokenizer=bytes"] } else { &[] };
        let called = plan(recipe, more);
        assert_eq!(called.code, Some(0), "{recipe}: {}", called.stderr);
        assert!(index.contains(&format!("]({recipe})")), "recipes/README.md does not list {recipe}");
    }
}

/// The models have the paper's numbers of parameters, and whatever decides them is as it was.
#[test]
fn the_experiments_of_the_paper() {
    for section in ["section-4.1", "section-4.2", "section-4.3"] {
        let called = plan(&format!("paper/{section}.toml"), &[]);
        assert!(!called.stderr.contains("parameters, not"), "{}", called.stderr);
        assert!(called.stderr.contains("hf:google-t5/t5-small is not in the cache"), "{}", called.stderr);
        assert!(called.stderr.contains("c4-validation.*.json.gz` matches no file"), "{}", called.stderr);
        insta::assert_snapshot!(section, called.success());
    }
    // The check is one.
    let wider = plan("paper/section-4.1.toml", &["--set", "models.small.d_ff=1152", "--only", "small-a"]);
    let warning = "small-a: warning: the model has 80,106,880 parameters, not 77 M as its `parameters` say";
    assert!(wider.stderr.contains(warning), "{}", wider.stderr);
}

/// What the paper did and what a small machine does differ in sizes, text and steps alone.
#[test]
fn small_experiments_have_the_papers_graphs() {
    for section in ["section-4.1", "section-4.2", "section-4.3"] {
        let graph = |size: &str, more: &[&str]| -> Vec<(String, String)> {
            let plan = plan(&format!("{size}/{section}.toml"), more).success();
            let rows = rows(&plan).into_iter().filter(|(name, ..)| name != "vocabulary");
            let mut graph: Vec<_> = rows.map(|(name, kind, _)| (name, kind)).collect();
            graph.sort();
            graph
        };
        assert_eq!(graph("paper", &[]), graph("small", &["--set", "seeds=1"]));
    }
}

/// Every setting of Figure 2 is there, trains a T5-L from another start, and all nodes train for as long.
#[test]
fn the_six_settings() {
    let plan = plan("paper/section-4.2.toml", &[]).success();
    let rows = rows(&plan);
    let settings: Vec<&str> =
        (rows.iter().map(|(name, ..)| name.as_str())).filter(|name| name.starts_with("setting-")).collect();
    assert_eq!(settings, [1, 2, 3, 4, 5, 6].map(|setting| format!("setting-{setting}")));
    for accuracy in ["69.89", "70.45", "70.56", "70.74", "70.57", "70.47"] {
        assert!(plan.contains(&format!("accuracy, % {accuracy}; Table 2")), "{accuracy}");
    }
    let steps = rows.iter().filter(|(_, kind, _)| kind == "pretrain");
    assert!(steps.clone().all(|(.., steps)| steps == "1000000"), "{plan}");
    assert_eq!(steps.count(), 16);
    // The caption says so of setting 4: seven nodes.
    let behind = |setting: &str| {
        let path = ["paper/section-4.2.toml", "--only", setting];
        let plan = self::plan(path[0], &path[1..]).success();
        self::rows(&plan).iter().filter(|(_, kind, _)| kind == "pretrain").count()
    };
    assert_eq!([1, 2, 3, 4, 5, 6].map(|setting| behind(&format!("setting-{setting}"))), [1, 5, 3, 7, 2, 3]);
}

/// The paper's averages follow from its scores: the mean of each task's metrics, then that of the eight tasks. It cuts
/// digits off rather than rounding.
#[test]
fn table_5_adds_up() {
    let table = fs::read_to_string(recipes().join("paper/table-5.csv")).expect("the table");
    let mut rows = 0;
    for line in table.lines().skip(1) {
        let (_, numbers) = line.rsplit_once("\",").expect("a label");
        let numbers: Vec<f64> = numbers.split(',').map(|number| number.parse().expect("a number")).collect();
        let [
            cola,
            sst,
            mrpc_f1,
            mrpc,
            pearson,
            spearman,
            qqp,
            qqp_f1,
            matched,
            mismatched,
            qnli,
            rte,
            average,
        ] = numbers[..]
        else {
            panic!("{line}")
        };
        let pairs = [(mrpc_f1, mrpc), (pearson, spearman), (qqp, qqp_f1), (matched, mismatched)];
        let pairs: f64 = pairs.iter().map(|(one, other)| (one + other) / 2.0).sum();
        let mean = (cola + sst + pairs + qnli + rte) / 8.0;
        assert!((-1e-6..0.01).contains(&(mean - average)), "{line}: {mean}");
        rows += 1;
    }
    assert_eq!(rows, 9);
}

/// Settings that make a run of a small recipe take no time.
const TINY: [&str; 8] = [
    "seeds=1",
    "pretraining.batch_size=2",
    "pretraining.evaluation_batches=1",
    "data.input_length=16",
    "stages.vocabulary.vocabulary=300",
    "variables.warm_up=0",
    "variables.learning_rate=0.01",
    "pretraining.evaluate_every=100",
];

fn run_tiny(recipe: &str, sets: &[&str], more: &[&str]) -> (tempfile::TempDir, String) {
    let rows = "sentence\tlabel\na ab abba\t0\nb ba bx\t1\n";
    let folder = directory(&[
        ("a.txt", &letters()),
        ("b.txt", &letters().replace('x', "y")),
        ("held-a.txt", "a few ab abx\n\nfor the evaluation of abba\n"),
        ("held-b.txt", "a few ab aby\n\nfor the evaluation of abba\n"),
        ("glue/SST-2/train.tsv", rows),
        ("glue/SST-2/dev.tsv", rows),
    ]);
    let path = recipes().join("small").join(recipe);
    let models = ["s", "m", "l", "small", "large", "attention", "mlp"];
    let sizes = models.iter().filter(|model| {
        let included =
            ["scale.toml", recipe].map(|file| fs::read_to_string(recipes().join("small").join(file)));
        included.iter().flatten().any(|text| text.contains(&format!("[models.{model}]")))
    });
    // Each as wide as two of the one before.
    let size = |model: &str| -> [usize; 3] {
        match model {
            "s" | "small" => [8, 2, 16],
            "m" | "large" => [16, 4, 32],
            "l" => [32, 8, 64],
            "attention" => [8, 3, 8],
            _ => [8, 1, 24],
        }
    };
    let mut own: Vec<String> = Vec::new();
    for model in sizes {
        let [d_model, num_heads, d_ff] = size(model);
        own.push(format!(
            "models.{model}={{d_model={d_model},num_heads={num_heads},d_kv=4,d_ff={d_ff},num_layers=1}}"
        ));
    }
    let sets = TINY.iter().copied().chain(own.iter().map(String::as_str)).chain(sets.iter().copied());
    let sets = sets.flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> = ["run", text(&path), "--output", "out"].into_iter().chain(sets).collect();
    let report = call_in(folder.path(), &[&arguments[..], more].concat()).success();
    (folder, report)
}

#[test]
fn the_arms_small() {
    let (folder, report) = run_tiny(
        "section-4.1.toml",
        &["variables.text=a.txt", "variables.steps=12", "variables.parent_steps=3"],
        &[],
    );
    assert!(report.contains("Published figures") && report.contains("67.25"), "{report}");
    let page = fs::read_to_string(folder.path().join("out/report.html")).expect("a page");
    assert!(page.contains("Published figures"));
}

#[test]
fn the_settings_small() {
    let (_folder, report) = run_tiny("section-4.2.toml", &["variables.text=a.txt", "variables.steps=2"], &[]);
    let (_, published) = report.split_once("Published figures").expect("the section");
    let rows = published.lines().filter(|line| line.starts_with("setting-") && line.ends_with("Table 2"));
    assert_eq!(rows.count(), 6, "{report}");
}

#[test]
fn glue_on_the_way_small() {
    let sets = [
        "variables.text=a.txt",
        "variables.steps=4",
        "variables.half=2",
        "variables.quarter=1",
        "variables.task_steps=1",
        "fine_tuning.batch_size=2",
        "fine_tuning.bootstrap=0",
        "fine_tuning.input_length=16",
    ];
    let (folder, report) = run_tiny("section-4.3.toml", &sets, &["--glue", "glue"]);
    for model in ["glue-small", "glue-baseline-0", "glue-fused-property-quarter", "glue-self-fused-half"] {
        assert!(report.contains(model), "{model}: {report}");
    }
    assert!(report.contains("GLUE: averages here are of 1 of the 8 tasks."), "{report}");
    let table = recipes().join("paper/table-5.csv");
    let beside = call_in(folder.path(), &["report", "out", "--beside", text(&table)]).success();
    assert!(beside.contains("Table 5: self-fusion, 500 K steps, run 3"), "{beside}");
}

#[test]
fn parents_of_other_domains_shapes_and_lengths() {
    let steps = ["variables.steps=12", "variables.parent_steps=3"];
    let texts = [
        "variables.first=a.txt",
        "variables.first_held_out=held-a.txt",
        "variables.second=b.txt",
        "variables.second_held_out=held-b.txt",
        "variables.examples=4",
    ];
    let (folder, report) = run_tiny("domains.toml", &[&steps[..], &texts].concat(), &[]);
    assert!(report.contains("ensemble-on-first") && report.contains("specialists-on-second"), "{report}");
    let read = |stage: &str| fs::read_to_string(folder.path().join("out").join(stage).join("stage.json"));
    for (text, other) in [("first", "b"), ("second", "a")] {
        let record = read(&format!("ensemble-on-{text}")).expect("a record");
        assert!(!record.contains(&format!("held-{other}.txt")), "{record}");
    }
    let short = ["variables.short=8", "variables.short_batch=4", "variables.text=a.txt"];
    let (_folder, report) = run_tiny("lengths.toml", &[&steps[..], &short].concat(), &[]);
    assert!(report.contains("short-ensemble-on-long"), "{report}");
    let (_folder, report) = run_tiny("shapes.toml", &[&steps[..], &["variables.text=a.txt"]].concat(), &[]);
    assert!(report.contains("balanced"), "{report}");
}
