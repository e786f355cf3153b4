use std::path::Path;

use crate::program::{call, call_in, directory, text};

const DATA: &str = "[data]\ntext = \"a.txt\"\nheld_out_every = 5\ntokenizer = \"words\"\n\n";
const MODEL: &str = "[models.small]\nd_model = 8\nnum_heads = 2\nd_kv = 4\nd_ff = 16\nnum_layers = 1\n\n";
const WORDS: &str = "[stages.words]\nkind = \"tokenizer\"\nvocabulary = 300\n\n";
const TRAINING: &str =
    "[pretraining]\nsteps = 4\nschedule = { peak = 0.01, decay = { kind = \"constant\" } }\n\n";

/// The error for a recipe, and for one that it may include.
fn error(recipe: &str, base: &str, arguments: &[&str]) -> String {
    let files = [("recipe.toml", recipe), ("base/base.toml", base), ("a.txt", "text\n")];
    let directory = directory(&files);
    let arguments = [&["run", "recipe.toml", "--dry-run"], arguments].concat();
    call_in(directory.path(), &arguments).failure()
}

#[test]
fn errors_have_file_line_and_column() {
    let start = format!("{DATA}{MODEL}{WORDS}{TRAINING}");
    let with = |stage: &str| format!("{start}{stage}");
    let cases = [
        ("not TOML", "[data\n".to_owned()),
        ("no data", format!("{MODEL}{WORDS}")),
        ("a text without a name", start.replace("a.txt", "")),
        ("unknown table", with("[stagse.a]\nkind = \"fuse\"\n")),
        ("unknown key of a stage", with("[stages.a]\nkind = \"pretrain\"\nmodel = \"small\"\nstepz = 3\n")),
        ("unknown key in the text", start.replace("held_out_every", "held_out_evry")),
        ("wrong type", with("[stages.a]\nkind = \"pretrain\"\nmodel = \"small\"\nsteps = \"many\"\n")),
        ("no kind", with("[stages.a]\nmodel = \"small\"\n")),
        ("unknown kind", with("[stages.a]\nkind = \"train\"\n")),
        ("a missing key", start.replace("d_ff = 16\n", "")),
        ("unknown model", with("[stages.a]\nkind = \"pretrain\"\nmodel = \"smal\"\n")),
        ("model and from", with("[stages.a]\nkind = \"pretrain\"\nmodel = \"small\"\nfrom = \"a\"\n")),
        (
            "an optimiser's state of random weights",
            with("[stages.a]\nkind = \"pretrain\"\nmodel = \"small\"\ncarry_optimizer = true\n"),
        ),
        (
            "a setting out of range",
            with("[stages.a]\nkind = \"pretrain\"\nmodel = \"small\"\nbatch_size = 0\n"),
        ),
        ("unknown stage", with("[stages.a]\nkind = \"fuse\"\nparents = [\"b\", \"c\"]\n")),
        ("a tokenizer as parent", with("[stages.a]\nkind = \"fuse\"\nparents = [\"words\"]\n")),
        ("no parents", with("[stages.a]\nkind = \"fuse\"\n")),
        ("bad depth", with("[stages.a]\nkind = \"fuse\"\nparents = [\"a\"]\ndepth = \"middle\"\n")),
        ("bad cross", with("[stages.a]\nkind = \"fuse\"\nparents = [\"a\"]\ncross = \"normal:x\"\n")),
        (
            "an option of another method",
            with("[stages.a]\nkind = \"fuse\"\nparents = [\"words\"]\nd_ff = 9\n"),
        ),
        ("unknown task", with("[stages.a]\nkind = \"glue\"\nmodel = \"a\"\ntasks = [\"rte\", \"wnli\"]\n")),
        (
            "a cycle",
            with(
                "[stages.a]\nkind = \"fuse\"\nparents = [\"b\"]\n[stages.b]\nkind = \"pretrain\"\nfrom = \"a\"\n",
            ),
        ),
        ("a stage as a path", with("[stages.\"../a\"]\nkind = \"fuse\"\nparents = [\"a\"]\n")),
        ("a comparison of what is not there", with("[comparison]\nbaseline = \"a\"\narms = []\n")),
    ];
    let errors: String =
        cases.iter().map(|(name, recipe)| format!("{name}\n{}\n", error(recipe, "", &[]))).collect();
    insta::assert_snapshot!(errors);
}

#[test]
fn errors_know_the_file_that_is_included() {
    let base = format!("{DATA}{MODEL}{WORDS}{TRAINING}[stages.a]\nkind = \"pretrain\"\nmodel = \"small\"\n");
    let include = "include = \"base/base.toml\"\n";
    let cases = [
        ("in the base", include.to_owned(), base.replace("d_kv = 4", "d_kv = \"four\"")),
        ("in an override", format!("{include}[models.small]\nd_kv = \"four\"\n"), base.clone()),
        ("an unknown key in an override", format!("{include}\n[stages.a]\nstepz = 3\n"), base.clone()),
        ("not there", "include = \"base/bse.toml\"\n".to_owned(), base.clone()),
        ("not a file", "include = 3\n".to_owned(), base.clone()),
        ("in a circle", include.to_owned(), "include = \"../recipe.toml\"\n".to_owned()),
    ];
    let errors: String =
        cases.iter().map(|(name, recipe, base)| format!("{name}\n{}\n", error(recipe, base, &[]))).collect();
    let sets = ["pretraining.stepz=3", "pretraining.steps=many", "steps"];
    let sets = sets.map(|set| format!("{set}\n{}\n", error(include, &base, &["--set", set])));
    insta::assert_snapshot!(errors + &sets.concat());
}

#[test]
fn an_override_changes_what_it_names() {
    let base = format!("{DATA}{MODEL}{WORDS}{TRAINING}[stages.a]\nkind = \"pretrain\"\nmodel = \"small\"\n");
    let over = "include = \"base.toml\"\n[data]\ntokenizer = \"others\"\n[stages.others]\nkind = \"tokenizer\"\nvocabulary = 9\n";
    let directory = directory(&[("recipe.toml", over), ("base.toml", &base), ("a.txt", &letters())]);
    insta::assert_snapshot!(call_in(directory.path(), &["run", "recipe.toml", "--plan"]).success());
    let only = call_in(directory.path(), &["run", "recipe.toml", "--plan", "--only", "a"]).success();
    insta::assert_snapshot!(only);
    let unknown = call_in(directory.path(), &["run", "recipe.toml", "--dry-run", "--only", "b"]).failure();
    insta::assert_snapshot!(unknown);
}

/// A plan adds up the memory of stages that may run side by side.
#[test]
fn jobs() {
    let again = "[stages.a]\nkind = \"pretrain\"\nmodel = \"small\"\n";
    let stages = format!("{again}{}", again.replace("stages.a", "stages.b"));
    let recipe = format!("{DATA}{MODEL}{WORDS}{TRAINING}{stages}");
    let directory = directory(&[("recipe.toml", &recipe), ("a.txt", &letters())]);
    let run =
        |more: &[&str]| call_in(directory.path(), &[&["run", "recipe.toml", "--dry-run"], more].concat());
    let memory = |more: &[&str]| {
        let plan = run(more).success();
        plan.lines().find(|line| line.contains("memory")).unwrap_or_else(|| panic!("{plan}")).to_owned()
    };
    let megabytes = |line: &str, of: &str| -> f64 {
        let number = line.strip_prefix("  memory    up to ").and_then(|rest| rest.strip_suffix(of));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let one = megabytes(&memory(&[]), " MB (a)");
    let two = memory(&["-j", "2"]);
    assert!((megabytes(&two, " MB (2 stages at a time)") - 2.0 * one).abs() < 0.2, "{two}, {one}");
    assert_eq!(memory(&["--jobs", "9"]), two);
    let refused = run(&["--jobs", "0"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("0 is not in 1..=1024"), "{}", refused.stderr);
}

#[test]
fn stages_share_their_warnings() {
    let stage = |name: &str| format!("[stages.{name}]\nkind = \"pretrain\"\nmodel = \"small\"\n");
    let recipe = format!("seeds = 2\n{DATA}{MODEL}{WORDS}{TRAINING}{}{}", stage("a"), stage("b"));
    let directory = directory(&[("recipe.toml", &recipe), ("a.txt", &letters())]);
    let plan = call_in(directory.path(), &["run", "recipe.toml", "--dry-run", "--device", "gpu"]);
    let warnings: Vec<&str> = plan.stderr.lines().filter(|line| line.contains("cannot run here")).collect();
    let [warning] = warnings.as_slice() else { panic!("{}", plan.stderr) };
    assert!(warning.starts_with("a, b: warning: it cannot run here: burn has no device"), "{warning}");
}

#[test]
fn the_recipes_of_the_project_are_sound() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    let plan = |recipe: &str, arguments: &[&str]| {
        let recipe = recipes.join(recipe);
        call(&[&["run", text(&recipe), "--plan", "--output", "/no/such/run"], arguments].concat())
    };
    plan("optimizer-state.toml", &[]).success();
    plan("calibration.toml", &[]).success();
    plan("minimal.toml", &[]).success();
    let quickstart = plan("quickstart.toml", &[]);
    insta::assert_snapshot!("warnings", quickstart.stderr);
    let quickstart = quickstart.success();
    insta::assert_snapshot!(quickstart);
    let stages = |plan: &str| -> Vec<String> {
        let lines = plan.lines().skip_while(|line| !line.starts_with("stage "));
        lines.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
    };
    assert_eq!(stages(&plan("quickstart-smoke.toml", &[]).success()), stages(&quickstart));
    let words = format!("{DATA}{WORDS}").replace("held_out_every = 5\n", "");
    let folder = directory(&[("words.toml", &words), ("a.txt", &letters())]);
    call_in(folder.path(), &["run", "words.toml", "--output", "out"]).success();
    let set = format!("data.tokenizer={}", text(&folder.path().join("out/words/tokenizer")));
    let texts =
        ["text", "held_out_text"].map(|key| format!("data.{key}={}", text(&folder.path().join("a.txt"))));
    let missing = plan("english.toml", &["--set", &set]);
    assert!(missing.stderr.contains("c4-train.*.json.gz` matches no file"), "{}", missing.stderr);
    missing.success();
    // What is not here is needed for a run.
    let english = recipes.join("english.toml");
    let refused = call_in(folder.path(), &["run", text(&english), "--set", &set]).failure();
    assert!(
        refused.contains("stage \"small-a\" will fail") && refused.contains("matches no file"),
        "{refused}"
    );
    let english = plan("english.toml", &["--set", &set, "--set", &texts[0], "--set", &texts[1]]);
    let same = "a.txt are held out, but its model is also trained on them";
    assert!(english.stderr.contains(same), "{}", english.stderr);
    let english = english.success();
    assert_eq!(stages(&english).len(), stages(&quickstart).len() - 1);
}

/// A text with many different words.
pub fn letters() -> String {
    let word = |a: char, b: char| format!("{a} {b}{a}x {a}{b}{b}{a}\n\n");
    ('a'..='z').flat_map(|a| ('a'..='z').map(move |b| word(a, b))).collect()
}

/// Parents that cannot be fused are refused before they are trained.
#[test]
fn what_a_later_stage_will_refuse_is_said_before_the_first_one_runs() {
    let relu = MODEL.replace("models.small", "models.relu") + "feed_forward_proj = \"relu\"\n";
    let stages = "[stages.a]\nkind = \"pretrain\"\nmodel = \"small\"\n[stages.b]\nkind = \"pretrain\"\nmodel = \"relu\"\n\
                  [stages.ab]\nkind = \"fuse\"\nparents = [\"a\", \"b\"]\n\
                  [stages.aa]\nkind = \"fuse\"\nparents = [\"a\"]\nmethod = \"lemon\"\nd_model = 9\n";
    let recipe = format!("{DATA}{MODEL}{relu}{WORDS}{TRAINING}{stages}");
    let folder = directory(&[("recipe.toml", &recipe), ("a.txt", &letters())]);
    let refused = call_in(folder.path(), &["run", "recipe.toml", "--output", "out"]).failure();
    insta::assert_snapshot!(refused);
    assert!(!folder.path().join("out").exists());
}

/// So are optimiser states that no stage leaves, or from which training cannot continue.
#[test]
fn states_that_will_be_missing_are_said_before_the_first_stage_runs() {
    let stage = |name: &str, keys: &str| format!("[stages.{name}]\n{}\n", keys.replace("; ", "\n"));
    let stages = [
        stage("a", "kind = \"pretrain\"; model = \"small\"; keep_optimizer = true"),
        stage("b", "kind = \"pretrain\"; model = \"small\""),
        stage(
            "c",
            "kind = \"pretrain\"; model = \"small\"; keep_optimizer = true; optimizer = { name = \"adafactor\" }",
        ),
        stage("aa", "kind = \"fuse\"; parents = [\"a\", \"a\"]; optimizer = \"carry\""),
        stage("ab", "kind = \"fuse\"; parents = [\"a\", \"b\"]; optimizer = \"carry\""),
        stage("ac", "kind = \"fuse\"; parents = [\"a\", \"c\"]; optimizer = \"diagonal\""),
        stage("same", "kind = \"pretrain\"; from = \"aa\"; carry_optimizer = true"),
        stage(
            "other",
            "kind = \"pretrain\"; from = \"aa\"; carry_optimizer = true; optimizer = { name = \"adamw\" }",
        ),
    ];
    let recipe = format!("{DATA}{MODEL}{WORDS}{TRAINING}{}", stages.concat());
    let folder = directory(&[("recipe.toml", &recipe), ("a.txt", &letters())]);
    insta::assert_snapshot!(call_in(folder.path(), &["run", "recipe.toml", "--dry-run"]).failure());
}

#[test]
fn a_changed_recipe_says_what_is_out_of_date() {
    let recipe = |vocabulary: u32| {
        format!(
            "{}[stages.words]\nkind = \"tokenizer\"\nvocabulary = {vocabulary}\n",
            DATA.replace("held_out_every = 5\n", "")
        )
    };
    let letters: String = ('a'..='z').map(|letter| format!("{letter} {letter}{letter}x\n")).collect();
    let folder = directory(&[("recipe.toml", &recipe(3)), ("a.txt", &letters)]);
    let run =
        |more: &[&str]| call_in(folder.path(), &[&["run", "recipe.toml", "--output", "out"], more].concat());
    let rewrite =
        |vocabulary| std::fs::write(folder.path().join("recipe.toml"), recipe(vocabulary)).expect("written");

    assert!(run(&[]).failure().contains("a vocabulary of 3 tokens is too small"));
    rewrite(150); // the first attempt left nothing that would be lost
    run(&[]).success();
    rewrite(152);
    insta::assert_snapshot!("out_of_date", run(&["--dry-run"]).success());
    assert!(run(&[]).failure().contains("`vocabulary` was 150, is 152"));
    run(&["--redo"]).success();
    assert!(run(&[]).stderr.contains("words: finished before"));

    let lock = std::fs::File::create(folder.path().join("out/.words.lock")).expect("a lock");
    lock.lock().expect("locked");
    rewrite(154);
    let other = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        drop(lock);
    });
    let waited = run(&["--redo"]);
    assert!(
        waited.stderr.contains("words: another process is at work on it\nwords: tokenizer\n"),
        "{}",
        waited.stderr
    );
    waited.success();
    other.join().expect("it ends");
}
