//! Objectives and ByT5's vocabulary, as a user meets them.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{call_in, directory, golden, text};

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// A folder with a text of 120 documents.
fn folder() -> TempDir {
    let what = ["rain", "the émigré", "a stone bridge", "nobody", "cold water", "the old wheel"];
    let does = ["turns under", "runs over", "remembers", "carries"];
    let line = |n: usize| format!("No. {n}: {} {} {}.", what[n % 6], does[n % 4], what[(n / 3) % 6]);
    let documents: Vec<String> = (0..120).map(line).collect();
    directory(&[("text.txt", &documents.join("\n\n"))])
}

const SAMPLE: &str = "data sample --text text.txt --tokenizer bytes --input-length 64";

#[test]
fn samples_show_what_an_objective_does() {
    let folder = folder();
    let sample = |more: &str| call_in(folder.path(), &words(&format!("{SAMPLE} {more}"))).success();
    let shown = ["", "--mean-span-length 20", "--noise-density 0.5", "--objective prefix_lm"];
    let shown = shown.map(|more| sample(&format!("{more} --batch-size 2")));
    insta::assert_snapshot!(shown.join(""));
    insta::assert_snapshot!(sample("--objective ul2 --mode-tokens --batch-size 8"));
    let mixture = "--denoiser prefix_lm,noise_density=0.25,rate=3,mode=[S] --denoiser span-corruption,mean_span_length=8";
    let mixture = json(&sample(&format!("{mixture} --batch-size 100 --json")));
    let examples = mixture[0]["examples"].as_array().expect("examples");
    let continued = |example: &&Value| example["spans"] == 0;
    assert!((60..90).contains(&examples.iter().filter(continued).count()));
    for example in examples {
        let [text, input, target] =
            ["text", "input", "target"].map(|key| example[key].as_str().expect("text"));
        match example["denoiser"].as_str().expect("a name") {
            "[S] prefix_lm, noise_density 0.25" => {
                // A cut may go through a character.
                let plain = |text: &str| text.replace('é', "");
                assert_eq!(format!("[S]{}", plain(text)), plain(input) + &plain(target));
            }
            "span_corruption, noise_density 0.15, mean_span_length 8" => assert!(!input.starts_with("[S]")),
            other => panic!("{other}"),
        }
        assert!(example["input_ids"].as_array().expect("ids").len() <= 64);
    }
}

#[test]
fn what_an_objective_cannot_be_says_why() {
    let folder = folder();
    let fails = |more: &str| {
        // A length of its own replaces the usual one.
        let usual = if more.contains("--input-length") {
            SAMPLE.replace(" --input-length 64", "")
        } else {
            SAMPLE.into()
        };
        let called = call_in(folder.path(), &words(&format!("{usual} {more}")));
        assert!(matches!(called.code, Some(1 | 2)) && called.stdout.is_empty(), "{more}: {}", called.stdout);
        format!("{more}\n{}", called.stderr)
    };
    let all = [
        "--noise-density 0",
        "--noise-density 1.5",
        "--mean-span-length 0.9",
        "--noise-density 0.9 --mean-span-length 1",
        "--input-length 1024 --mean-span-length 1",
        "--objective prefix_lm --input-length 2",
        "--objective ul2 --input-length 1024",
        "--objective ul2 --mode-tokens --input-length 5",
        "--objective prefix_lm --mean-span-length 3",
        "--objective ul2 --noise-density 0.5",
        "--mode-tokens",
        "--denoiser prefix_lm,rates=3",
        "--denoiser prefix_lm,rate=-1",
        "--denoiser prefix_lm --objective ul2",
        "--objective ul3",
    ];
    insta::assert_snapshot!(all.map(fails).join("\n"));
    let without_text = call_in(folder.path(), &words("verify a b --objective prefix_lm"));
    assert_eq!(without_text.code, Some(2));
    assert!(without_text.stderr.contains("--text"), "{}", without_text.stderr);
}

#[test]
fn recipes_say_what_is_wrong_with_an_objective() {
    let folder = folder();
    let recipe = |objective: &str| {
        format!(
            "[data]\ntext = \"text.txt\"\nheld_out_every = 10\ntokenizer = \"bytes\"\n{objective}\n\
             [models.small]\nd_model = 16\nnum_heads = 2\nd_kv = 8\nd_ff = 32\nnum_layers = 1\n\
             [pretraining]\nsteps = 2\nbatch_size = 4\nevaluation_batches = 1\n\
             [stages.a]\nkind = \"pretrain\"\nmodel = \"small\"\n"
        )
    };
    let run = |objective: &str| {
        fs::write(folder.path().join("recipe.toml"), recipe(objective)).expect("a file");
        call_in(folder.path(), &words("run recipe.toml --dry-run"))
    };
    let fails = |objective: &str| format!("{objective}\n{}", run(objective).failure());
    let all = [
        "objective = \"prefix\"",
        "objective.noise_density = 2",
        "objective = { kind = \"prefix_lm\", mean_span_length = 3 }",
        "objective = { kind = \"mixture\" }",
        "objective = { kind = \"mixture\", denoisers = [] }",
        "objective = { kind = \"mixture\", denoisers = [\"ul2\"] }",
        "objective = { kind = \"mixture\", denoisers = [{ kind = \"prefix_lm\", rate = 0 }] }",
        "objective = \"ul2\"\ninput_length = 600",
    ];
    insta::assert_snapshot!(all.map(fails).join("\n"));
    for objective in [
        "",
        "objective = \"Prefix-LM\"",
        "objective.mean_span_length = 20",
        "objective = \"ul2\"\ninput_length = 256",
    ] {
        run(objective).success();
    }
}

/// What a training's examples say is what its model says of these texts, which are read again as they were where
/// tokens are bytes.
#[test]
fn examples_are_the_models_own_words() {
    let folder = folder();
    let folder = folder.path();
    let model = "--d-model 16 --num-heads 2 --d-kv 8 --d-ff 32 --num-layers 1";
    let text = "--text text.txt --held-out-every 10 --input-length 64 --tokenizer bytes";
    let training =
        "--steps 60 --learning-rate 0.05 --batch-size 8 --evaluate-every 60 --evaluation-batches 1";
    call_in(folder, &words(&format!("pretrain {model} {text} {training} --output a"))).success();
    let examples = json(&fs::read_to_string(folder.join("a/examples.json")).expect("a file"));
    let examples = examples["examples"].as_array().expect("examples");
    let inputs = examples.iter().map(|example| example["input"].as_str().expect("a text"));
    let ask = words("generate --model a --max-new-tokens 64 --json");
    let answers = json(&call_in(folder, &ask.into_iter().chain(inputs).collect::<Vec<_>>()).success());
    let sample = format!("data sample {text} --held-out --batch-size {} --json", examples.len());
    let sampled = json(&call_in(folder, &words(&sample)).success());
    let mut filled = 0;
    for (at, example) in examples.iter().enumerate() {
        assert_eq!(example["input"], sampled[0]["examples"][at]["input"]);
        let string = |value: &Value| value.as_str().map(str::to_owned);
        let said = string(&answers[at]["output"]).expect("an answer");
        let target = string(&sampled[0]["examples"][at]["target"]).expect("a target");
        for span in example["spans"].as_array().expect("spans") {
            let [sentinel, expected] = ["sentinel", "expected"].map(|key| string(&span[key]).expect("text"));
            assert!(target.contains(&format!("{sentinel}{expected}")), "{example}, {target}");
            let Some(own) = string(&span["filled"]) else { continue };
            assert!(said.contains(&format!("{sentinel}{own}")), "{example}, {said}");
            filled += 1;
        }
    }
    assert!(filled > 0, "{answers}");
}

/// A model on bytes: trained on a mixture, evaluated, asked, fused and exported.
#[test]
fn a_model_of_bytes() {
    let folder = folder();
    let folder = folder.path();
    let call = |command: &str| call_in(folder, &words(command));
    let model = "--d-model 16 --num-heads 2 --d-kv 8 --d-ff 32 --num-layers 1";
    let text = "--text text.txt --held-out-every 10 --input-length 64";
    let training = "--steps 4 --batch-size 8 --evaluate-every 2 --evaluation-batches 2 --checkpoint-every 2";
    let pretrain = |more: &str| format!("pretrain {model} {text} {training} --tokenizer bytes {more}");
    for (seed, name) in [(0, "a"), (1, "b")] {
        let mixture = format!("--objective ul2 --mode-tokens --seed {seed} --output {name}");
        call(&pretrain(&mixture)).success();
        // Once more: nothing is left to do.
        call(&pretrain(&mixture)).success();
    }
    let refused = call(&pretrain("--objective ul2 --output a")).failure();
    assert!(refused.contains("objective"), "{refused}");
    let config = json(&fs::read_to_string(folder.join("a/model/config.json")).expect("a file"));
    assert_eq!(config["vocab_size"], 384);
    let beside = |model: &str| {
        let path = folder.join(model).join("tokenizer_config.json");
        json(&fs::read_to_string(path).expect("a file"))["tokenizer_class"].clone()
    };
    assert_eq!(beside("a/model"), "ByT5Tokenizer");
    assert!(!folder.join("a/model/tokenizer.json").exists());

    let evaluate = |more: &str| {
        json(&call(&format!("evaluate --model a --text text.txt --input-length 64 --json {more}")).success())
    };
    let own = evaluate("--objective ul2 --mode-tokens");
    let other = call("evaluate --model a --text text.txt --input-length 64");
    let warning =
        "a was trained on ul2 with mode tokens, and is measured on span_corruption, noise_density 0.15";
    assert!(other.stderr.contains(warning), "{}", other.stderr);
    let same = call("evaluate --model a --text text.txt --input-length 64 --objective ul2 --mode-tokens");
    assert!(!same.stderr.contains("was trained on"), "{}", same.stderr);
    assert_eq!(own, evaluate("--objective ul2 --mode-tokens --batch-size 3 --tokenizer bytes"));
    let keys = ["loss", "context_gain", "sentinel_loss", "first_loss", "rest_loss"];
    assert!(keys.iter().all(|key| own[key].is_number()), "{own}");
    assert_ne!(own["loss"], evaluate("")["loss"]);
    let continued = evaluate("--objective prefix_lm");
    assert!(keys.iter().all(|key| continued[key].is_number()), "{continued}");

    let said = call("generate --model a --max-new-tokens 8 --json naïve").success();
    assert_eq!(json(&said)[0]["input"], "naïve");

    call("fuse a b --output fused --norm property").success();
    assert_eq!(beside("fused"), "ByT5Tokenizer");
    call("verify fused a b --text text.txt --objective ul2 --mode-tokens --input-length 64").success();
    call("export fused --output exported").success();
    assert_eq!(beside("exported"), "ByT5Tokenizer");
    let card = fs::read_to_string(folder.join("exported/README.md")).expect("a file");
    assert!(card.contains("AutoTokenizer"), "{card}");
    call("fuse a b --norm rule --calibrate text.txt --calibrate-examples 16 --objective prefix_lm --output fitted").success();

    let words = "tokenizer train --text text.txt --vocabulary 150 --sentinels 20 --output words";
    call(words).success();
    call(&pretrain("--output c").replace("--tokenizer bytes", "--tokenizer words")).success();
    let refused = call("fuse a c --output mixed").failure();
    assert!(refused.contains("different tokenizers"), "{refused}");
    let refused = call("evaluate --model c --text text.txt --tokenizer bytes").failure();
    assert!(refused.contains("another tokenizer"), "{refused}");
}

/// A folder that only says in the model's configuration that its vocabulary is ByT5's, as the first files of
/// google/byt5-small did.
#[test]
fn a_class_in_the_configuration_is_enough() {
    let folder = folder();
    let model = folder.path().join("byt5");
    fs::create_dir(&model).expect("a folder");
    for file in fs::read_dir(golden("v1_1")).expect("a folder").flatten() {
        fs::copy(file.path(), model.join(file.file_name())).expect("a copy");
    }
    let path = model.join("config.json");
    let mut config = json(&fs::read_to_string(&path).expect("a file"));
    config["tokenizer_class"] = "ByT5Tokenizer".into();
    fs::write(&path, config.to_string()).expect("a file");
    let refused =
        call_in(folder.path(), &["evaluate", "--model", text(&model), "--text", "text.txt"]).failure();
    assert!(refused.contains("the tokenizer has 384 tokens"), "{refused}");
    let grown = folder.path().join("grown");
    call_in(folder.path(), &["fuse", text(&model), "--times", "2", "--output", text(&grown)]).success();
    let config = json(&fs::read_to_string(grown.join("config.json")).expect("a file"));
    assert_eq!(config["tokenizer_class"], "ByT5Tokenizer");
    let exported = folder.path().join("exported");
    call_in(folder.path(), &["export", text(&grown), "--output", text(&exported)]).success();
    assert!(
        fs::read_to_string(exported.join("tokenizer_config.json")).expect("a file").contains("ByT5Tokenizer")
    );
}
