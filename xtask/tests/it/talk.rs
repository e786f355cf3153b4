//! A vocabulary, a model, what it was trained on, and what it answers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{PROGRAM, call_in, directory};

const TEXT: &str = "--text builtin:webster --held-out-every 20 --max-documents 300 --input-length 48";

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// A folder with a vocabulary and a model that has hardly been trained.
fn trained() -> TempDir {
    let folder = directory(&[]);
    let vocabulary = "tokenizer train --text builtin:webster --held-out-every 20 --max-documents 300 --vocabulary 400 \
         --sentinels 20 --output vocabulary/tokenizer";
    call_in(folder.path(), &words(vocabulary)).success();
    let dimensions = "--d-model 32 --num-heads 2 --d-kv 16 --d-ff 64 --num-layers 2 --steps 4 --batch-size 8";
    let training = "--evaluation-batches 1 --evaluate-every 2 --tokenizer vocabulary --output small";
    let pretrain = format!("pretrain {TEXT} {dimensions} {training}");
    call_in(folder.path(), &words(&pretrain)).success();
    folder
}

/// Everything here shares one folder: training it takes most of the time.
#[test]
fn from_text_to_answers() {
    let folder = trained();
    let folder = folder.path();
    the_vocabulary_is_that_of_the_stage(folder);
    samples_are_what_a_training_reads(folder);
    folders_are_taken_for_their_content(folder);
    answers_show_sentinels(folder);
    inputs_come_from_files(folder);
    text_comes_from_columns(folder);
    the_user_hears_as_much_as_wanted(folder);
    #[cfg(unix)]
    two_signals_at_once_are_one_wish(folder);
    a_training_is_reported(folder);
}

fn the_vocabulary_is_that_of_the_stage(folder: &Path) {
    let recipe = "[data]\ntext = \"builtin:webster\"\nheld_out_every = 20\nmax_documents = 300\n\
                  [stages.words]\nkind = \"tokenizer\"\nvocabulary = 400\nsentinels = 20\n";
    fs::write(folder.join("recipe.toml"), recipe).expect("a file");
    call_in(folder, &words("run recipe.toml --output run")).success();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        let read = |place: &str| fs::read_to_string(folder.join(place).join(name)).expect("a file");
        assert_eq!(read("vocabulary/tokenizer"), read("run/words/tokenizer"), "{name}");
    }
    let again = "tokenizer train --text builtin:webster --max-documents 30 --vocabulary 300 --output vocabulary/tokenizer";
    let refused = call_in(folder, &words(again)).failure();
    assert!(refused.contains("exists and is not empty; --overwrite replaces"), "{refused}");
    let refused =
        call_in(folder, &words(&again.replace("vocabulary/tokenizer", "run --overwrite"))).failure();
    assert!(refused.contains("run holds no tokenizer, so it is not overwritten"), "{refused}");
}

/// In batches of any size; and the targets say what the inputs lack.
fn samples_are_what_a_training_reads(folder: &Path) {
    let sample = |more: &str| {
        let command = format!("data sample {TEXT} --tokenizer vocabulary --json {more}");
        json(&call_in(folder, &words(&command)).success())
    };
    let examples = |batches: &Value| -> Vec<Value> {
        let batches = batches.as_array().expect("batches").iter();
        batches.flat_map(|batch| batch["examples"].as_array().expect("examples").clone()).collect()
    };
    let together = examples(&sample("--batch-size 6 --batches 2 --seed 3"));
    assert_eq!(together, examples(&sample("--batch-size 4 --batches 3 --seed 3")));
    assert_eq!(together[6..], examples(&sample("--batch-size 3 --skip 2 --batches 2 --seed 3")));
    assert_ne!(together, examples(&sample("--batch-size 12 --seed 4")));
    for example in &together {
        let [input, target] = ["input", "target"].map(|key| example[key].as_str().expect("text"));
        assert!(input.contains("<extra_id_0>") && target.starts_with("<extra_id_0>"), "{example}");
        assert_eq!(example["input_ids"].as_array().map(Vec::len), Some(48));
        let masked =
            example["masked"].as_f64().expect("a number") / example["tokens"].as_f64().expect("a number");
        assert!((0.1..0.2).contains(&masked), "{example}");
    }
    let held_out = examples(&sample("--held-out --batch-size 12"));
    assert_eq!(held_out, examples(&sample("--held-out --batch-size 12 --seed 9")));
    assert!(held_out.iter().all(|example| !together.contains(example)));
    // Nothing need be held out.
    let all =
        "data sample --text builtin:webster --max-documents 300 --input-length 48 --tokenizer vocabulary";
    let text = call_in(folder, &words(all)).success();
    assert!(text.starts_with("batch 1, example 1: ") && text.contains("\ntarget: <extra_id_0>"), "{text}");
}

fn folders_are_taken_for_their_content(folder: &Path) {
    let commands = [
        "inspect small".to_owned(),
        "generate --model small x --max-new-tokens 2 --tokenizer vocabulary".to_owned(),
        "generate --model small x --max-new-tokens 2 --tokenizer small".to_owned(),
        "evaluate --model small --text builtin:webster --input-length 48 --examples 16 --tokenizer vocabulary"
            .to_owned(),
        "fuse small small --output fused".to_owned(),
        "check small small".to_owned(),
        "verify fused small small --text builtin:webster --examples 4 --tokenizer vocabulary".to_owned(),
        "export small --output exported".to_owned(),
        "convert small --tokenizer vocabulary --output converted".to_owned(),
        format!("pretrain {TEXT} --from small --steps 0 --batch-size 4 --evaluation-batches 1 --output more"),
    ];
    for command in &commands {
        call_in(folder, &words(command)).success();
    }
    let recipe = "[data]\ntext = \"builtin:webster\"\nheld_out_every = 20\ntokenizer = \"vocabulary\"\ninput_length = 48\n\
                  [stages.fused]\nkind = \"fuse\"\nparents = [\"small\", \"small\"]\n\
                  [stages.score]\nkind = \"evaluate\"\nmodel = \"small\"\nexamples = 16\n";
    fs::write(folder.join("folders.toml"), recipe).expect("a file");
    call_in(folder, &words("run folders.toml --output folders --dry-run")).success();
    call_in(folder, &words("run folders.toml --output folders")).success();
    // The parent's content is protected, too.
    let onto = call_in(folder, &words("fuse small small --output small/model --overwrite")).failure();
    assert!(onto.contains("small/model is what is to be read"), "{onto}");
    let several = call_in(folder, &words("inspect folders")).failure();
    assert!(several.contains("several stages, of which one must be named: folders/fused"), "{several}");
    fs::create_dir_all(folder.join("begun/checkpoints")).expect("a directory");
    fs::rename(folder.join("more/model"), folder.join("begun/checkpoints/step-00000003")).expect("moved");
    let unfinished = call_in(folder, &words("inspect begun")).failure();
    assert!(unfinished.contains("has not finished; begun/checkpoints/step-00000003 is its"), "{unfinished}");
    let recipe = recipe.replace("model = \"small\"", "model = \"begun\"");
    fs::write(folder.join("folders.toml"), recipe).expect("a file");
    let unfinished = call_in(folder, &words("run folders.toml --output folders --dry-run")).failure();
    assert!(
        unfinished.contains("folders.toml:11:9") && unfinished.contains("has not finished"),
        "{unfinished}"
    );
}

fn answers_show_sentinels(folder: &Path) {
    let input = "The <extra_id_0> of <extra_id_1> walks";
    let generate = |more: &str| {
        let mut arguments = words("generate --model small --max-new-tokens 8 --json");
        arguments.extend(words(more));
        arguments.push(input);
        json(&call_in(folder, &arguments).success())
    };
    let answers = generate("--sample --temperature 1.5 --answers 6 --seed 1 --fill");
    assert_eq!(answers.as_array().map(Vec::len), Some(6));
    assert_eq!(answers, generate("--temperature 1.5 --answers 6 --seed 1 --fill"));
    assert_ne!(answers, generate("--temperature 1.5 --answers 6 --seed 2 --fill"));
    let tokenizer =
        t5_model::text::Tokenizer::load(folder.join("vocabulary/tokenizer")).expect("a tokenizer");
    let mut sentinels = 0;
    for answer in answers.as_array().expect("answers") {
        let tokens = answer["tokens"].as_array().expect("tokens").iter();
        let tokens: Vec<i32> = tokens.map(|token| token.as_i64().expect("a token") as i32).collect();
        let output = answer["output"].as_str().expect("text");
        assert_eq!(output, tokenizer.decode_with_sentinels(&tokens).expect("text"));
        sentinels += usize::from(output.contains("<extra_id_"));
        assert!(answer["filled"].as_str().is_some_and(|filled| filled.starts_with("The")), "{answer}");
        assert!(answer["log_probability"].as_f64().is_some_and(|log| log < 0.0), "{answer}");
    }
    assert!(sentinels > 0, "{answers}");
    let beams = generate("--beams 3 --answers 3 --length-penalty 0.5");
    let scores: Vec<f64> =
        beams.as_array().expect("answers").iter().filter_map(|answer| answer["score"].as_f64()).collect();
    assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    for (wrong, expected) in [
        ("--answers 2", "greedy decoding has one answer"),
        ("--beams 2 --top-k 3", "beam search draws nothing"),
        ("--temperature 0", "0 is greedy decoding"),
        ("--max-new-tokens 0", "0 is not a number from 1 to 65536"),
    ] {
        let refused = call_in(folder, &words(&format!("generate --model small {wrong} x"))).failure();
        assert!(refused.contains(expected), "{refused}");
    }
}

fn inputs_come_from_files(folder: &Path) {
    let inputs = ["a river", "", "the <extra_id_0> stone", "a river"];
    let documents: String =
        inputs.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n").collect();
    fs::write(folder.join("inputs.txt"), inputs.join("\n")).expect("a file");
    fs::write(folder.join("inputs.jsonl"), documents).expect("a file");
    let generate = "generate --model small --max-new-tokens 6 --top-k 50 --answers 2 --seed 4 --json";
    let given = |more: &str| {
        let command = format!("{generate} {more}");
        json(&call_in(folder, &words(&command)).success())
    };
    let expected = given("--input inputs.txt");
    assert_eq!(expected.as_array().map(Vec::len), Some(8));
    assert_ne!(expected[0], expected[6], "equal inputs are drawn for apart");
    assert_eq!(given("--input inputs.jsonl"), expected);
    assert_eq!(given("--input inputs.txt --batch-size 1"), expected);
    let program = Command::new(PROGRAM)
        .args(words(generate))
        .args(["--input", "-"])
        .current_dir(folder)
        .stdin(fs::File::open(folder.join("inputs.txt")).expect("a file"))
        .stderr(Stdio::inherit())
        .output()
        .expect("the program starts");
    assert_eq!(json(&String::from_utf8_lossy(&program.stdout)), expected);
    fs::write(folder.join("broken.txt"), b"fine\n\xff\n").expect("a file");
    let refused = call_in(folder, &words(&format!("{generate} --input broken.txt"))).failure();
    assert!(refused.contains("broken.txt:2"), "{refused}");
    let refused = call_in(folder, &words(&format!("{generate} --input nothing.txt"))).failure();
    assert!(refused.contains("nothing.txt"), "{refused}");
}

fn the_user_hears_as_much_as_wanted(folder: &Path) {
    let train = |more: &str| {
        let rest = "--from small --steps 2 --checkpoint-every 1 --batch-size 2 --evaluation-batches 1 --evaluate-every 1";
        call_in(folder, &words(&format!("pretrain {TEXT} {rest} {more}")))
    };
    let quiet = train("--output quiet --quiet");
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
    let usual = train("--output usual");
    assert!(usual.stderr.contains("held-out loss") && !usual.stderr.contains("saved in"), "{}", usual.stderr);
    let verbose = train("--output verbose -v");
    assert!(
        verbose.stderr.contains("step 1 saved in verbose/checkpoints/step-00000001 ("),
        "{}",
        verbose.stderr
    );
    let evaluate =
        "evaluate --model small --text builtin:webster --input-length 48 --examples 40 --batch-size 8";
    let shown = call_in(folder, &words(evaluate)).stderr;
    assert!(shown.contains("examples evaluated"), "{shown}");
    assert_eq!(call_in(folder, &words(&format!("{evaluate} -q"))).stderr, "");
}

/// A terminal and cargo may both pass a signal on.
#[cfg(unix)]
fn two_signals_at_once_are_one_wish(folder: &Path) {
    let rest =
        "--from small --steps 1000000 --batch-size 2 --evaluation-batches 1 --log-every 1 --output stopped";
    let process = Command::new(PROGRAM)
        .args(words(&format!("pretrain {TEXT} {rest}")))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let metrics = folder.join("stopped/metrics.jsonl");
    while !fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 3) {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    for signal in ["-INT", "-TERM"] {
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }
    let output = process.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("is saved in stopped/checkpoints/step-"), "{said}");
}

/// The same text in tables, under another name, gives the same batches.
fn text_comes_from_columns(folder: &Path) {
    let documents: Vec<String> =
        (0..300).map(|n| format!("{n} is a number, \"{}\"; so is {}", n * 7, n + 1)).collect();
    let lines = documents.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n");
    fs::write(folder.join("numbers.jsonl"), lines.collect::<String>()).expect("a file");
    let row = |text: &String| format!("1,\"{}\"\n", text.replace('"', "\"\""));
    let rows: String = documents.iter().map(row).collect();
    fs::create_dir_all(folder.join("tables")).expect("a directory");
    fs::write(folder.join("tables/numbers.csv"), format!("id,body\n{rows}")).expect("a file");
    let sample = |text: &str| {
        let command = format!(
            "data sample --text {text} --held-out-every 9 --tokenizer vocabulary --input-length 40 --json"
        );
        json(&call_in(folder, &words(&command)).success())
    };
    let expected = sample("numbers.jsonl");
    assert_eq!(sample("tables --text-field body"), expected);
    let train = |text: &str| {
        let command = format!(
            "tokenizer train --text {text} --vocabulary 200 --sentinels 5 --json --output {}",
            text.len()
        );
        json(&call_in(folder, &words(&command)).success())["fingerprint"].clone()
    };
    assert_eq!(train("tables --text-field body"), train("numbers.jsonl"));
    let recipe = "[data]\ntext = \"tables\"\ntext_field = \"body\"\nheld_out_every = 9\ntokenizer = \"vocabulary\"\n\
                  input_length = 40\n[stages.score]\nkind = \"evaluate\"\nmodel = \"small\"\nexamples = 8\n";
    fs::write(folder.join("columns.toml"), recipe).expect("a file");
    call_in(folder, &words("run columns.toml --output columns")).success();
    let refused = call_in(folder, &words("evaluate --model small --text tables --input-length 40")).failure();
    assert!(refused.contains("there is no column \"text\"; there are: id, body"), "{refused}");
}

fn a_training_is_reported(folder: &Path) {
    let report = call_in(folder, &["report", "small"]).success();
    assert!(report.contains("\nsmall  pretrain      82,432      4   1.9 k  "), "{report}");
    let table = |title: &str| -> Vec<&str> {
        let lines = report.lines().skip_while(|line| !line.starts_with(title)).skip(1);
        lines.take_while(|line| !line.is_empty()).collect()
    };
    let curve = table("step  tokens");
    assert!(curve.len() == 3 && curve[1].starts_with("2        960  "), "{report}");
    let holes = table("in the text");
    assert!(holes.len() > 6 && holes.iter().any(|hole| hole.contains("___")), "{report}");
    let report = json(&call_in(folder, &["report", "small", "--json"]).success());
    assert_eq!(report["stages"][0]["result"]["steps"], 4);
    fs::remove_dir_all(folder.join("small/model")).expect("removed");
    let unfinished = call_in(folder, &["report", "small"]).success();
    assert!(unfinished.contains("not finished") && unfinished.contains("On held-out text"), "{unfinished}");
}
