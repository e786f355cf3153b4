//! An interrupted run ends like an uninterrupted one.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use insta::assert_snapshot;
use t5_model::train::{Metrics, Outcome, PretrainingEvent as Event, read_metrics};

use crate::toy::{Fault, Trial, settings};

/// Everything time-independent that a run leaves: the model's files, the metrics, the outcome.
#[derive(Debug, PartialEq)]
struct Result {
    model: BTreeMap<String, Vec<u8>>,
    metrics: Vec<Metrics>,
    outcome: Outcome,
}

fn result(trial: &Trial, outcome: Outcome) -> Result {
    let file = |name: String| (name.clone(), fs::read(trial.path("model").join(name)).unwrap());
    let model = trial.names("model").into_iter().map(file).collect();
    let mut metrics = read_metrics(trial.directory.path()).unwrap();
    for line in &mut metrics {
        if let Metrics::Train { tokens_per_second, .. } = line {
            assert!(*tokens_per_second > 0.0);
            *tokens_per_second = 0.0;
        }
    }
    assert!(outcome.finished);
    assert_eq!(outcome.checkpoint, trial.path("model"));
    Result { model, metrics, outcome: Outcome { checkpoint: "model".into(), ..outcome } }
}

static UNINTERRUPTED: LazyLock<Result> = LazyLock::new(|| {
    let mut trial = trial();
    let outcome = trial.train().unwrap();
    result(&trial, outcome)
});

/// Also compares the optimiser's state.
fn trial() -> Trial {
    let mut trial = Trial::default();
    trial.settings.keep_optimizer = true;
    trial
}

fn finish_and_compare(mut trial: Trial) {
    let outcome = trial.train().unwrap();
    assert_eq!(result(&trial, outcome), *UNINTERRUPTED, "{:#?}", trial.events);
}

/// Results of several updates arrive together, and the run that follows is the same.
#[test]
fn on_a_device_that_goes_on_by_itself() {
    for stop in 1..=settings().steps {
        let mut trial = Trial { asynchronous: true, ..trial() };
        trial.train_until(|event| matches!(event, Event::Step { step, .. } if *step == stop)).unwrap();
        finish_and_compare(trial);
    }
}

#[test]
fn stopped_after_any_update() {
    for stop in 1..=settings().steps {
        let mut trial = trial();
        let outcome =
            trial.train_until(|event| matches!(event, Event::Step { step, .. } if *step == stop)).unwrap();
        assert!(!outcome.finished);
        assert_eq!(outcome.step, stop);
        assert_eq!(outcome.checkpoint, trial.path(&format!("checkpoints/step-{stop:08}")));
        finish_and_compare(trial);
    }
}

#[test]
fn stopped_after_any_evaluation() {
    for stop in [0, 4, 8] {
        let mut trial = trial();
        let at = |event: &Event<'_>| matches!(event, Event::Evaluated { step, .. } if *step == stop);
        let outcome = trial.train_until(at).unwrap();
        assert_eq!((outcome.finished, outcome.step), (false, stop));
        assert_eq!(outcome.evaluations.last().map(|point| point.step), Some(stop));
        finish_and_compare(trial);
    }
}

#[test]
fn stopping_after_the_last_evaluation_is_too_late() {
    let mut trial = trial();
    let last = |event: &Event<'_>| matches!(event, Event::Evaluated { step: 10, .. });
    let outcome = trial.train_until(last).unwrap();
    assert_eq!(result(&trial, outcome), *UNINTERRUPTED);
}

#[test]
fn stopped_after_every_single_update() {
    let mut trial = trial();
    for step in 1..=settings().steps {
        let outcome = trial.train_until(|event| matches!(event, Event::Step { .. })).unwrap();
        assert_eq!(outcome.step, step);
    }
    finish_and_compare(trial);
}

#[test]
fn failed_in_an_update() {
    let mut trial = trial();
    trial.fault = Some(Fault::Update(8));
    trial.train().unwrap_err();
    trial.fault = None;
    finish_and_compare(trial);
}

#[test]
fn killed_in_any_update() {
    for asynchronous in [false, true] {
        for step in 1..=settings().steps {
            let mut trial = Trial { asynchronous, fault: Some(Fault::Panic(step)), ..trial() };
            catch_unwind(AssertUnwindSafe(|| trial.train())).unwrap_err();
            trial.fault = None;
            // What a process leaves when it is killed in the middle of a line.
            let mut metrics = fs::read(trial.path("metrics.jsonl")).unwrap();
            metrics.extend(b"{\"kind\":\"train\",\"st");
            fs::write(trial.path("metrics.jsonl"), metrics).unwrap();
            read_metrics(trial.directory.path()).unwrap();
            finish_and_compare(trial);
        }
    }
}

#[test]
fn failed_in_the_last_evaluation() {
    let mut trial = trial();
    trial.fault = Some(Fault::Evaluation(10));
    trial.train().unwrap_err();
    trial.fault = None;
    finish_and_compare(trial);
}

#[test]
fn half_written_and_half_deleted_checkpoints_do_not_count() {
    let mut trial = trial();
    trial.fault = Some(Fault::Update(5));
    trial.train().unwrap_err();
    trial.fault = None;
    for name in [".step-00000004.99999999-0.partial", ".step-00000002.deleted"] {
        fs::create_dir(trial.path("checkpoints").join(name)).unwrap();
        fs::write(trial.path("checkpoints").join(name).join("config.json"), "{").unwrap();
    }
    let outcome = trial.train().unwrap();
    assert_eq!(trial.names("checkpoints"), ["step-00000006", "step-00000009"]);
    assert_eq!(result(&trial, outcome), *UNINTERRUPTED);
}

#[test]
fn says_when_metrics_are_gone() {
    let mut trial = trial();
    trial.fault = Some(Fault::Update(5));
    trial.train().unwrap_err();
    trial.fault = None;
    fs::remove_file(trial.path("metrics.jsonl")).unwrap();
    let outcome = trial.train().unwrap();
    assert!(
        trial.events.contains(&"resumed step-00000003 at 3, 2 lines missing".to_owned()),
        "{:?}",
        trial.events
    );
    assert_eq!(outcome.evaluations, UNINTERRUPTED.outcome.evaluations);
    assert_eq!(result(&trial, outcome).metrics, UNINTERRUPTED.metrics[2..]);
}

/// A run that starts with another's optimiser state loads it only once, however often it is interrupted.
#[test]
fn stopped_after_any_update_with_a_carried_state() {
    let mut earlier = trial();
    earlier.train().unwrap();
    let carrying = || {
        let mut trial = trial();
        trial.carry(&earlier);
        trial
    };
    let mut whole = carrying();
    let outcome = whole.train().unwrap();
    let expected = result(&whole, outcome);
    assert_ne!(expected.model["model.safetensors"], UNINTERRUPTED.model["model.safetensors"]);
    let header: serde_json::Value = serde_json::from_slice(&expected.model["optimizer.json"]).unwrap();
    assert_eq!(header["step"], 20);
    for stop in [0, 1, 3, 7] {
        let mut trial = carrying();
        let at = |event: &Event<'_>| match event {
            Event::Step { step, .. } => *step == stop,
            Event::Evaluated { step, .. } => stop == 0 && *step == 0,
            _ => false,
        };
        assert_eq!(trial.train_until(at).unwrap().step, stop);
        let outcome = trial.train().unwrap();
        assert_eq!(result(&trial, outcome), expected, "stopped after {stop}");
    }
}

#[test]
fn a_carried_state_is_the_same_after_an_interruption() {
    let [mut first, mut second] = [trial(), trial()];
    second.settings.seed += 1;
    first.train().unwrap();
    second.train().unwrap();
    let mut trial = trial();
    trial.settings.carry_optimizer = true;
    let none = trial.train();
    let none = trial.message(none);
    trial.carry(&first);
    trial.train_until(|event| matches!(event, Event::Step { step: 4, .. })).unwrap();
    trial.carry(&second);
    let other = trial.train();
    let hash = |text: &str| text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
    let other = trial.message(other);
    let other: Vec<_> = other.split('"').map(|part| if hash(part) { "HASH" } else { part }).collect();
    assert_snapshot!(format!("{none}\n{}", other.join("\"")), @r#"
    carry_optimizer: the model to start from comes without an optimiser's state
    checkpoints/step-00000004 was trained with another `model.optimizer` ("HASH", now "HASH"), so it cannot be continued; restore the setting or choose another directory
    "#);
    trial.carry(&first);
    trial.train().unwrap();
}

#[test]
fn the_toy_depends_on_what_resuming_restores() {
    let uninterrupted = |change: fn(&mut Trial)| {
        let mut trial = trial();
        change(&mut trial);
        trial.train().unwrap();
        fs::read(trial.path("model/model.safetensors")).unwrap()
    };
    let weights = UNINTERRUPTED.model["model.safetensors"].clone();
    assert_eq!(uninterrupted(|_| {}), weights);
    assert_ne!(uninterrupted(|trial| trial.settings.seed += 1), weights);
    assert_ne!(uninterrupted(|trial| trial.settings.schedule.warm_up = Some(4)), weights);
    assert_ne!(uninterrupted(|trial| trial.settings.steps += 1), weights);
}
