//! What a run leaves on disk.

use std::fs;

use fusion_core::checkpoint::{Checkpoint, TensorFile};
use fusion_core::lineage::{Lineage, Training};
use fusion_core::{Dtype, TensorSource};
use insta::assert_snapshot;
use t5_model::text::{Corpus, DataPosition, Denoisers, ExampleStream, Objective, Tokenizer};
use t5_model::train::{Metrics, PretrainingEvent as Event, Settings, read_metrics};
use t5_model::{T5Config, training_flops_per_token};

use crate::text_support::{documents, tokenizer};
use crate::toy::{Trial, config, text_options};

#[test]
fn tells_what_happens() {
    let mut trial = Trial::default();
    trial.train().unwrap();
    assert_snapshot!(trial.events.join("\n"), @r"
    evaluated 0
    step 1
    step 2
    step 3
    wrote step-00000003 at 3
    step 4
    evaluated 4
    step 5
    step 6
    wrote step-00000006 at 6
    step 7
    step 8
    evaluated 8
    step 9
    wrote step-00000009 at 9
    step 10
    evaluated 10
    wrote model at 10
    ");
}

/// However many steps lie between checkpoints: no time passes in vain.
#[test]
fn checkpoints_are_written_by_time_too() {
    for (minutes, expected) in [(1e-12, 9), (0.0, 0), (1e5, 0)] {
        let mut trial = Trial::default();
        trial.settings.checkpoint_every = 1000;
        trial.settings.checkpoint_minutes = minutes;
        trial.train().unwrap();
        let written = trial.events.iter().filter(|event| event.starts_with("wrote step-")).count();
        assert_eq!(written, expected, "{minutes}: {:?}", trial.events);
    }
}

#[test]
fn without_steps_the_model_is_written_as_it_begins() {
    let mut trial = Trial::default();
    trial.settings.steps = 0;
    trial.train().unwrap();
    assert_eq!(trial.events, ["evaluated 0", "wrote model at 0"]);
    let checkpoint = Checkpoint::open(&trial.path("model")).unwrap();
    assert_eq!(checkpoint.lineage().unwrap().unwrap().training, []);
}

#[test]
fn a_checkpoint_is_a_model_and_a_state() {
    let mut trial = Trial::default();
    let earlier = Training { steps: 7, tokens: 70, flops: 700.0, ..Training::default() };
    trial.lineage = Lineage { training: vec![earlier.clone()], ..Lineage::default() };
    let outcome = trial.train().unwrap();
    assert_snapshot!(trial.names("").join(" "), @"checkpoints lock metrics.jsonl model tensorboard");
    assert_eq!(trial.names("checkpoints"), ["step-00000006", "step-00000009"]);
    assert_snapshot!(trial.names("checkpoints/step-00000009").join(" "), @"config.json lineage.json model.safetensors optimizer.json optimizer.safetensors special_tokens_map.json tokenizer.json tokenizer_config.json training_state.json");
    assert_snapshot!(trial.names("model").join(" "), @"config.json lineage.json model.safetensors special_tokens_map.json tokenizer.json tokenizer_config.json training_state.json");

    for (folder, steps) in [("checkpoints/step-00000009", 9), ("model", 10)] {
        let checkpoint = Checkpoint::open(&trial.path(folder)).unwrap();
        assert_eq!(checkpoint.names(), ["toy.weight"]);
        let read = T5Config::from_json(checkpoint.config(), checkpoint.directory()).unwrap();
        assert_eq!(read.to_json(), config().to_json_beside(Some(Dtype::F32)));
        let loaded = Tokenizer::load(trial.path(folder)).unwrap();
        assert_eq!(loaded.fingerprint(), tokenizer().fingerprint());
        let lineage = checkpoint.lineage().unwrap().unwrap();
        assert_eq!(lineage.blake3, Some(checkpoint.blake3().unwrap()));
        assert_eq!(lineage.training[0], earlier);
        let training = &lineage.training[1];
        assert_eq!(training.steps, steps);
        // Four inputs of 20 tokens per update, and their targets.
        let targets =
            Denoisers::lengths(&Objective::T5, 20, tokenizer().sentinels().len()).unwrap().targets as u64;
        let tokens = steps * 4 * (20 + targets);
        assert_eq!(training.tokens, tokens);
        let flops = training_flops_per_token(&config(), 20, targets as usize) * tokens as f64;
        assert!((training.flops / flops - 1.0).abs() < 1e-12, "{} {flops}", training.flops);
    }
    let optimizer = TensorFile::open(&trial.path("checkpoints/step-00000009/optimizer.safetensors")).unwrap();
    assert_eq!(optimizer.names(), ["toy.weight.momentum"]);

    let steps: Vec<_> = outcome.evaluations.iter().map(|point| point.step).collect();
    assert_eq!(steps, [0, 4, 8, 10]);
    assert_eq!((outcome.evaluations[0].tokens, outcome.evaluations[0].flops), (0, 0.0));
    let last = outcome.evaluations[3];
    assert_eq!((last.tokens, last.flops), (outcome.tokens, outcome.flops));
}

#[test]
fn the_optimizer_is_kept_on_request() {
    let mut trial = Trial::default();
    trial.settings.keep_optimizer = true;
    trial.train().unwrap();
    let optimizer = TensorFile::open(&trial.path("model/optimizer.safetensors")).unwrap();
    assert_eq!(optimizer.names(), ["toy.weight.momentum"]);
}

/// What is kept on the way is what a shorter look would have seen, whatever happens to checkpoints.
#[test]
fn models_on_the_way_are_kept() {
    let mut trial = Trial::default();
    trial.settings.keep_steps = vec![0, 4, 6, 10];
    trial.settings.keep_checkpoints = 1;
    trial.train().unwrap();
    let weights = |trial: &Trial, place: &str| {
        let checkpoint = Checkpoint::open(&trial.path(place)).unwrap();
        let names = checkpoint.names();
        names.iter().map(|name| checkpoint.load_f32(name).unwrap().data).collect::<Vec<_>>()
    };
    let kept = ["kept/step-00000000", "kept/step-00000004", "kept/step-00000006"];
    assert!(!trial.path("kept/step-00000010").exists(), "the last is the model");
    assert!(!trial.path("kept/step-00000004/optimizer.json").exists());
    let lineage = Lineage::read(&trial.path(kept[2])).unwrap().unwrap();
    assert_eq!(lineage.training.iter().map(|training| training.steps).collect::<Vec<_>>(), [6]);
    // A checkpoint has the same weights, and so has a run that was interrupted there.
    let settings = Settings { keep_optimizer: true, ..trial.settings.clone() };
    let mut other = Trial { settings, ..Trial::default() };
    for stop in [5, 6] {
        other.train_until(|event| matches!(event, Event::Step { step, .. } if *step == stop)).unwrap();
    }
    assert_eq!(weights(&other, "checkpoints/step-00000006"), weights(&trial, kept[2]));
    assert!(other.path(kept[1]).join("optimizer.json").exists());
    // One that was lost on the way is written again from a checkpoint of that step; others stay as they are.
    fs::remove_dir_all(other.path(kept[2])).unwrap();
    other.events.clear();
    other.train().unwrap();
    let written = other.events.iter().filter(|event| event.contains("wrote")).collect::<Vec<_>>();
    assert_eq!(written, ["wrote step-00000006 at 6", "wrote step-00000009 at 9", "wrote model at 10"]);
    for kept in kept {
        assert_eq!(weights(&other, kept), weights(&trial, kept), "{kept}");
    }
    // They are not part of what a run is, and none lies beyond its end.
    trial.settings.keep_steps = vec![11];
    let refused = trial.train().unwrap_err().to_string();
    assert_eq!(refused, "keep_steps: there is no step 11; there are 10 in all");
}

#[test]
fn metrics_are_means() {
    let mut trial = Trial::default();
    trial.settings.steps = 5;
    let seen = std::cell::RefCell::new(Vec::new());
    trial
        .train_until(|event| {
            if let Event::Step { loss, accuracy, gradient_norm, learning_rate, .. } = *event {
                seen.borrow_mut().push([loss, accuracy, gradient_norm, learning_rate]);
            }
            false
        })
        .unwrap();
    let seen = seen.into_inner();
    let lines = read_metrics(trial.directory.path()).unwrap();
    let mut expected = [&seen[0..2], &seen[2..4], &seen[4..5]].into_iter();
    let mut steps = Vec::new();
    for line in lines {
        let Metrics::Train { step, loss, accuracy, gradient_norm, learning_rate, .. } = line else {
            continue;
        };
        steps.push(step);
        let window = expected.next().unwrap();
        let mean = |index: usize| window.iter().map(|step| step[index]).sum::<f64>() / window.len() as f64;
        // All updates have the same number of target tokens.
        for (found, expected) in [(loss, mean(0)), (accuracy, mean(1)), (gradient_norm, mean(2))] {
            assert!((found - expected).abs() < 1e-12, "step {step}: {found} {expected}");
        }
        assert_eq!(learning_rate, window.last().unwrap()[3]);
    }
    assert_eq!(steps, [2, 4, 5]);
    assert_eq!(seen[0][3], 0.0, "the warm-up begins at 0");
    assert_eq!(seen[3][3], 0.5);
    let first = fs::read_to_string(trial.path("metrics.jsonl")).unwrap().lines().next().unwrap().to_owned();
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["context_gain"], 0.0, "the toy does not read its inputs");
    let names: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "kind",
            "step",
            "tokens",
            "flops",
            "loss",
            "loss_error",
            "accuracy",
            "context_gain",
            "sentinel_loss",
            "sentinel_accuracy",
            "first_loss",
            "first_accuracy",
            "rest_loss",
            "rest_accuracy",
        ]
    );
}

#[test]
fn batches_are_the_texts() {
    // The toy checks the number of micro-batches; this checks that five updates read exactly five batches.
    let mut trial = Trial::default();
    trial.settings.checkpoint_every = 5;
    trial.train().unwrap();
    let state = fs::read(trial.path("checkpoints/step-00000005/training_state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let position: DataPosition = serde_json::from_value(state["position"].clone()).unwrap();
    let spans = Denoisers::new(&Objective::T5, 20, &tokenizer()).unwrap();
    let corpus = Corpus::from_documents("sample", documents(60));
    let options = text_options(4, trial.settings.seed);
    let text = ExampleStream::new(corpus, tokenizer(), spans, options, DataPosition::default()).unwrap();
    assert_eq!(text.take(5).last().unwrap().unwrap().position, position);
}

#[test]
fn a_finished_run_is_not_trained_again() {
    let mut trial = Trial::default();
    let outcome = trial.train().unwrap();
    let (events, opened) = (trial.events.len(), trial.opened);
    let metrics = fs::read(trial.path("metrics.jsonl")).unwrap();
    assert_eq!(trial.train().unwrap(), outcome);
    assert_eq!((trial.events.len(), trial.opened), (events, opened));
    assert_eq!(fs::read(trial.path("metrics.jsonl")).unwrap(), metrics);
}

#[test]
fn curves_of_each_attempt_go_to_a_file() {
    let mut trial = Trial::default();
    trial.train_until(|event| matches!(event, Event::Step { step: 5, .. })).unwrap();
    trial.train().unwrap();
    let names = trial.names("tensorboard");
    assert_eq!(names.len(), 2);
    let contains = |name: &str, text: &str| {
        let bytes = fs::read(trial.path("tensorboard").join(name)).unwrap();
        bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
    };
    assert_eq!([contains(&names[0], "train/loss"), contains(&names[1], "train/loss")], [2, 3]);
    assert_eq!([contains(&names[0], "eval/accuracy"), contains(&names[1], "eval/accuracy")], [2, 2]);
}
