//! What a directory says besides its weights: types, values that are none, tied names, and the files beside.

use std::fs;
use std::path::{Path, PathBuf};

use fusion_core::checkpoint::{Checkpoint, LazyTensor, Writer};
use fusion_core::{Dtype, HostTensors, TensorSource};
use serde_json::{Value, json};

use crate::program::{call, directory, golden, text};

/// A copy of a small model with other tensors.
fn rewritten(source: &str, folder: &Path, name: &str, change: impl Fn(&mut HostTensors)) -> PathBuf {
    let (source, output) = (Checkpoint::open(&golden(source)).expect("a checkpoint"), folder.join(name));
    let load = |name: String| (name.clone(), source.load_f32(&name).expect("a tensor"));
    let mut tensors: HostTensors = source.names().into_iter().map(load).collect();
    change(&mut tensors);
    fs::create_dir_all(&output).expect("a directory");
    Writer::default().weights(&output, LazyTensor::all(&tensors).expect("tensors")).expect("written");
    fs::copy(source.directory().join("config.json"), output.join("config.json")).expect("copied");
    output
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

/// The type that config.json gives, and that of the tensors.
fn types(model: &Path) -> (Value, Vec<String>) {
    let checkpoint = Checkpoint::open(model).expect("a checkpoint");
    let each = checkpoint.names().into_iter();
    let mut types: Vec<String> =
        each.map(|name| checkpoint.view(&name).expect("a tensor").dtype().to_string()).collect();
    types.sort();
    types.dedup();
    assert!(!checkpoint.config().contains_key("dtype"), "one key says it");
    (checkpoint.config().get("torch_dtype").cloned().unwrap_or_default(), types)
}

#[test]
fn a_configuration_says_the_type_that_the_weights_have() {
    let folder = directory(&[]);
    let at = |name: &str| folder.path().join(name);
    let (a, b) = (golden("fusion/untied/parent_0"), golden("fusion/untied/parent_1"));
    call(&["convert", text(&a), "--dtype", "f16", "--output", text(&at("a16"))]).success();
    assert_eq!(types(&at("a16")), (json!("float16"), vec!["F16".into()]));
    // As transformers 5 writes it.
    let path = at("a16").join("config.json");
    let mut config = json_of(&path);
    config["dtype"] = config.as_object_mut().expect("an object").remove("torch_dtype").expect("a type");
    fs::write(&path, config.to_string()).expect("written");

    let fuse = |parents: &[&Path], more: &[&str], name: &str| {
        let parents: Vec<&str> = parents.iter().map(|parent| text(parent)).collect();
        let child = at(name);
        let outlook = call(&[&["check"], &parents[..], more].concat()).success();
        let called = call(&[&["fuse"], &parents[..], &["--output", text(&child)], more].concat());
        let told = |line: &&str| {
            ["differ in type", "rounded", "config.json says"].iter().any(|told| line.contains(told))
        };
        let warnings: String = called.stderr.lines().filter(told).map(|line| format!("{line}\n")).collect();
        warnings.lines().for_each(|line| assert!(outlook.contains(line), "{line}: {outlook}"));
        called.success();
        (types(&child), warnings)
    };
    // The wider type holds both, so the child is the ensemble of what the parents are.
    let (child, said) = fuse(&[&at("a16"), &b], &[], "mixed");
    assert_eq!(child, (json!("float32"), vec!["F32".into()]));
    assert!(said.contains("differ in type (a16: F16; parent_1: F32); the child's are F32"), "{said}");
    call(&["verify", text(&at("mixed")), text(&at("a16")), text(&b)]).success();
    let (child, said) = fuse(&[&at("a16"), &at("a16")], &[], "half");
    assert_eq!((child, said.as_str()), ((json!("float16"), vec!["F16".into()]), ""));
    // What is rounded is no longer the ensemble, within what `verify` accepts, and says so.
    for (parents, more) in [(vec![&a, &b], &["--dtype", "bf16"][..]), (vec![&at("a16"); 3], &[])] {
        let parents: Vec<&Path> = parents.into_iter().map(PathBuf::as_path).collect();
        let name = if more.is_empty() { "thirds" } else { "rounded" };
        let (child, said) = fuse(&parents, more, name);
        let dtype = if more.is_empty() { ("float16", "F16") } else { ("bfloat16", "BF16") };
        assert_eq!(child, (json!(dtype.0), vec![dtype.1.to_owned()]));
        assert!(said.contains(&format!("rounded to {}", dtype.1)), "{said}");
        let child = at(name);
        let named: Vec<&str> = [child.as_path()].iter().chain(&parents).map(|path| text(path)).collect();
        assert_eq!(call(&[&["verify"], &named[..]].concat()).code, Some(1), "{name}");
    }
    call(&["export", text(&at("a16")), "--dtype", "f32", "--output", text(&at("exported"))]).success();
    assert_eq!(types(&at("exported")), (json!("float32"), vec!["F32".into()]));

    // A configuration that says otherwise is noticed.
    config["dtype"] = "bfloat16".into();
    fs::write(&path, config.to_string()).expect("written");
    let expected = "config.json says that the weights are bfloat16, but they are F16";
    for command in
        [vec!["inspect", text(&at("a16"))], vec!["fuse", text(&at("a16")), text(&b), "--plan-only"]]
    {
        let said = call(&command).stderr;
        assert!(said.contains(expected), "{command:?}: {said}");
    }
    assert!(call(&["check", text(&at("a16")), text(&b)]).success().contains(expected));
}

#[test]
fn weights_that_are_not_finite_are_noticed_before_anything_is_written() {
    let folder = directory(&[]);
    let spoil = |value: f32, name: &str| {
        rewritten("fusion/untied/parent_0", folder.path(), name, |tensors| {
            let wo = tensors.get_mut("encoder.block.1.layer.1.DenseReluDense.wo.weight").expect("there");
            wo.data[3] = value;
        })
    };
    let (nan, infinite) = (spoil(f32::NAN, "nan"), spoil(f32::NEG_INFINITY, "infinite"));
    let good = golden("fusion/untied/parent_1");
    let child = folder.path().join("child");
    for bad in [&nan, &infinite] {
        let expected = "encoder.block.1.layer.1.DenseReluDense.wo.weight has 1 value that is not finite";
        let fuse = ["fuse", text(&good), text(bad), "--output", text(&child)];
        for command in [&["check", text(&good), text(bad)][..], &fuse] {
            let refused = call(command).failure();
            assert!(refused.contains(expected), "{refused}");
        }
        assert!(!child.exists());
        // The same model in another form is what it was, and is said to be.
        for command in ["convert", "export"] {
            let output =
                folder.path().join(format!("{command}-{}", bad.file_name().expect("a name").display()));
            let called = call(&[command, text(bad), "--output", text(&output)]);
            assert!(
                called.stderr.contains("not finite (NaN or infinite): 1 in encoder"),
                "{}",
                called.stderr
            );
            called.success();
        }
    }
    // A tensor that is no parameter does not count.
    let extra = rewritten("fusion/untied/parent_0", folder.path(), "extra", |tensors| {
        let mut tensor = tensors["encoder.final_layer_norm.weight"].clone();
        tensor.data[0] = f32::NAN;
        tensors.insert("encoder.final_layer_norm.bias".into(), tensor);
    });
    call(&["fuse", text(&extra), text(&good), "--output", text(&child)]).success();
}

/// Programs that save a shared tensor once do so under any of its names.
#[test]
fn a_tied_embedding_goes_by_any_of_its_names() {
    let folder = directory(&[]);
    let input = golden("v1_0/reference.safetensors");
    let hash = |model: &Path| {
        let output = folder.path().join("out.safetensors");
        let files = ["--input", text(&input), "--output", text(&output)];
        call(&[&["forward", "--model", text(model)], &files[..]].concat()).success();
        fs::read(&output).expect("a file")
    };
    let expected = hash(&golden("v1_0"));
    let names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"];
    for name in names {
        let model = rewritten("v1_0", folder.path(), name, |tensors| {
            let embedding = tensors.remove("shared.weight").expect("there");
            tensors.insert(name.into(), embedding);
        });
        assert_eq!(hash(&model), expected, "{name}");
        let converted = folder.path().join(format!("{name}-converted"));
        call(&["convert", text(&model), "--output", text(&converted)]).success();
        let written = Checkpoint::open(&converted).expect("a checkpoint").blake3().expect("a hash");
        assert_eq!(
            written,
            Checkpoint::open(&golden("v1_0")).expect("a checkpoint").blake3().expect("a hash")
        );
    }
    // With all names for one tensor, as in PyTorch's state dicts, and with one that differs.
    for (name, differs) in [("same", false), ("other", true)] {
        let model = rewritten("v1_0", folder.path(), name, |tensors| {
            let embedding = tensors["shared.weight"].clone();
            names.iter().for_each(|name| drop(tensors.insert((*name).into(), embedding.clone())));
            if differs {
                tensors.get_mut(names[1]).expect("there").data[0] += 1.0;
            }
        });
        if !differs {
            assert_eq!(hash(&model), expected);
            continue;
        }
        let output = folder.path().join("out.safetensors");
        let converted = folder.path().join("converted");
        for command in [
            vec!["forward", "--model", text(&model), "--input", text(&input), "--output", text(&output)],
            vec!["inspect", text(&model)],
            vec!["convert", text(&model), "--output", text(&converted)],
            vec!["check", text(&model), text(&model)],
        ] {
            let refused = call(&command).failure();
            assert!(refused.contains("shared.weight and decoder.embed_tokens.weight differ"), "{refused}");
        }
    }
}

const FILES: [(&str, &str); 11] = [
    ("a/generation_config.json", r#"{"num_beams": 4, "max_new_tokens": 37, "eos_token_id": 1}"#),
    ("b/generation_config.json", r#"{"num_beams": 1, "max_new_tokens": 37, "top_k": 5, "eos_token_id": 1}"#),
    ("a/LICENSE", "one"),
    ("b/LICENSE", "another"),
    ("b/NOTICE.txt", "both"),
    ("a/README.md", "# A"),
    ("a/training_args.bin", "pickled"),
    ("a/runs/events", ""),
    ("a/.gitattributes", ""),
    ("b/chat_template.jinja", "{{ messages }}"),
    ("a/plan.txt", "a plan"),
];

fn parents(folder: &Path) -> [PathBuf; 2] {
    [("a", "parent_0"), ("b", "parent_1")].map(|(name, source)| {
        for file in ["config.json", "model.safetensors"] {
            fs::copy(golden("fusion/untied").join(source).join(file), folder.join(name).join(file))
                .expect("copied");
        }
        folder.join(name)
    })
}

fn names(model: &Path) -> Vec<String> {
    let entries = fs::read_dir(model).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != fusion_core::atomic::RECORD);
    names.sort();
    names
}

#[test]
fn files_beside_the_weights_are_carried_on_or_said_to_be_left_behind() {
    let folder = directory(&FILES);
    let [a, b] = parents(folder.path());
    let output = folder.path().join("output");
    let mut report = String::new();
    let commands = [
        vec!["fuse", text(&a), text(&b)],
        vec!["fuse", text(&a), "--method", "hyperclone"],
        vec!["convert", text(&a)],
        vec!["export", text(&a)],
    ];
    for command in commands {
        let called = call(&[&command[..], &["--output", text(&output)]].concat());
        let name = |word: &&str| Path::new(word).file_name().map(|name| name.to_string_lossy().into_owned());
        report += &format!("{}\n", command.iter().filter_map(name).collect::<Vec<_>>().join(" "));
        let said = |line: &&str| line.contains("left behind") || line.contains("generation_config");
        called.stderr.lines().filter(said).for_each(|line| report += &format!("  {line}\n"));
        called.success();
        for name in names(&output) {
            let content = fs::read_to_string(output.join(&name)).unwrap_or_default();
            let shown = content.len() < 100 && name != "config.json";
            report += &format!("  {name}{}\n", if shown { format!(": {content}") } else { String::new() });
        }
        fs::remove_dir_all(&output).expect("removed");
    }
    insta::assert_snapshot!("files_beside", report);
}

/// Without a file of its own, a model's settings for generation stand in config.json. Once there is a file,
/// transformers no longer reads them there.
#[test]
fn an_export_gathers_settings_for_generation() {
    let folder = directory(&[]);
    let model = rewritten("v1_1", folder.path(), "model", |_| ());
    let path = model.join("config.json");
    let mut config = json_of(&path);
    config["num_beams"] = 4.into();
    config["eos_token_id"] = json!([1, 5]);
    fs::write(&path, config.to_string()).expect("written");
    let output = folder.path().join("output");
    call(&["export", text(&model), "--output", text(&output)]).success();
    let expected = json!({
        "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": [1, 5], "num_beams": 4,
    });
    assert_eq!(json_of(&output.join("generation_config.json")), expected);
}

/// The vocabulary of t5-model's goldens.
fn vocabulary() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../t5-model/tests/goldens/tokenizer")
}

#[test]
fn a_trained_model_keeps_the_files_and_answers_by_them() {
    let sentence = "a quiet bird carries water home under old trees in the park before evening came ";
    let line = format!("{}\n", json!({ "text": sentence.repeat(12) }));
    let folder = directory(&[("text.jsonl", &line.repeat(12))]);
    let at = |name: &str| folder.path().join(name);
    let text_file = at("text.jsonl");
    let train = |from: &[&str], output: &Path| {
        let settings = ["--held-out-every", "4", "--input-length", "32", "--batch-size", "2", "--steps", "1"];
        let text_of = ["--text", text(&text_file), "--output", text(output)];
        call(&[&["pretrain"], from, &text_of[..], &settings, &["--evaluation-batches", "1"]].concat())
    };
    let tokenizer = vocabulary();
    let small = ["--tokenizer", text(&tokenizer), "--d-model", "8", "--num-heads", "2", "--d-kv", "4"];
    train(&[&small[..], &["--d-ff", "16", "--num-layers", "1"]].concat(), &at("first")).success();
    let model = at("first/model");
    let first = json_of(&model.join("config.json"));
    assert_eq!(first["torch_dtype"], "float32");

    fs::remove_file(model.join("tokenizer.json")).expect("removed");
    fs::copy(tokenizer.join("spiece.model"), model.join("spiece.model")).expect("copied");
    let settings = json!({
        "num_beams": 2, "eos_token_id": [9, 7], "decoder_start_token_id": 0, "pad_token_id": 0, "max_new_tokens": 3,
        "min_new_tokens": 3,
    });
    let own = json!({ "tokenizer_class": "T5Tokenizer", "model_max_length": 77 });
    for (name, content) in [
        ("generation_config.json", settings.to_string()),
        ("tokenizer_config.json", own.to_string()),
        ("LICENSE", "mine".to_owned()),
        ("notes.txt", "mine".to_owned()),
    ] {
        fs::write(model.join(name), content).expect("written");
    }
    let called = train(&["--from", text(&model)], &at("second"));
    assert!(called.stderr.contains("left behind: notes.txt"), "{}", called.stderr);
    called.success();
    let trained = at("second/model");
    for name in ["generation_config.json", "tokenizer_config.json", "LICENSE", "spiece.model"] {
        let [before, after] = [&model, &trained].map(|model| fs::read(model.join(name)).expect("a file"));
        assert_eq!(before, after, "{name}");
    }
    let answers = call(&["generate", "--model", text(&trained), "--json", "a bird"]);
    for expected in
        ["eos_token_id is [9, 7] in generation_config.json, but 1", "num_beams = 2, which is not followed"]
    {
        assert!(answers.stderr.contains(expected), "{}", answers.stderr);
    }
    let answers: Value = serde_json::from_str(&answers.success()).expect("JSON");
    let tokens = answers[0]["tokens"].as_array().expect("a list").clone();
    assert_eq!(tokens.len(), 3, "as many as the settings want");
    assert!(tokens.iter().all(|token| ![1, 7, 9].contains(&token.as_i64().expect("an id"))), "{tokens:?}");
    let short = call(&["generate", "--model", text(&trained), "--json", "--max-new-tokens", "2", "a bird"]);
    let short: Value = serde_json::from_str(&short.success()).expect("JSON");
    assert_eq!(short[0]["tokens"].as_array().expect("a list").len(), 2);
}

/// The child gets the tokenizer of whichever parent has one.
#[test]
fn the_tokenizer_of_any_parent() {
    let folder = directory(&[]);
    let models = ["a", "b"].map(|name| {
        rewritten("fusion/untied/parent_0", folder.path(), name, |tensors| {
            // As wide as the vocabulary.
            for tensor in ["shared.weight", "lm_head.weight"].map(|name| name.to_owned()) {
                let tensor = tensors.get_mut(&tensor).expect("there");
                let columns = tensor.shape[1];
                tensor.data.resize(288 * columns, 0.1);
                tensor.shape[0] = 288;
            }
        })
    });
    for model in &models {
        let path = model.join("config.json");
        let mut config = json_of(&path);
        config["vocab_size"] = 288.into();
        fs::write(&path, config.to_string()).expect("written");
    }
    let [a, b] = &models;
    for name in ["spiece.model", "tokenizer.json"] {
        fs::copy(vocabulary().join(name), b.join(name)).expect("copied");
    }
    let child = folder.path().join("child");
    let called = call(&["fuse", text(a), text(b), "--output", text(&child)]);
    assert!(called.stderr.contains("a comes without a tokenizer"), "{}", called.stderr);
    called.success();
    assert!(child.join("spiece.model").is_file() && child.join("tokenizer.json").is_file());
    call(&["generate", "--model", text(&child), "--max-new-tokens", "2", "a bird"]).success();
    // One vocabulary, but other tokens for a text.
    fs::copy(vocabulary().join("tokenizer.json"), a.join("tokenizer.json")).expect("copied");
    fs::write(a.join("tokenizer_config.json"), r#"{"split_special_tokens": true}"#).expect("written");
    let outlook = call(&["check", text(a), text(b)]).success();
    assert!(outlook.contains("divide \"a <extra_id_0> b</s><pad>c <unk>\" differently"), "{outlook}");
    let types = Checkpoint::open(&child).expect("a checkpoint");
    assert_eq!(types.view("shared.weight").expect("there").dtype(), Dtype::F32);
}
