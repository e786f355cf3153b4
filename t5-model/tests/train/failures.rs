//! Whatever goes wrong, checkpoints stay intact and the message says what to do.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use serde_json::{Value, json};
use t5_model::train::{PretrainingEvent as Event, RENAMED, TrainError};

use crate::toy::{Fault, Trial};

/// All files below a folder with their contents.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(contents(&path)),
            false => files.push((path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
    files.sort();
    files
}

/// A run that was interrupted after its checkpoints at steps 3 and 6.
fn interrupted() -> Trial {
    let mut trial = Trial { fault: Some(Fault::Update(8)), ..Trial::default() };
    trial.train().unwrap_err();
    trial.fault = None;
    assert_eq!(trial.names("checkpoints"), ["step-00000003", "step-00000006"]);
    trial
}

#[test]
fn failed_updates() {
    let messages =
        [Fault::Update(2), Fault::Update(8), Fault::NonFinite(2), Fault::NonFinite(8)].map(|fault| {
            let mut trial = Trial { fault: Some(fault), ..Trial::default() };
            let result = trial.train();
            assert!(!trial.path("model").exists());
            trial.message(result)
        });
    assert_snapshot!(messages.join("\n"), @r"
    update 2: the device failed: it is gone; there is no checkpoint yet
    update 8: the device failed: it is gone; the newest checkpoint is checkpoints/step-00000006
    update 2: the loss is NaN and the gradient's norm inf; the weights were left as they were. A lower learning rate, a longer warm-up or clipping usually helps; there is no checkpoint yet
    update 8: the loss is NaN and the gradient's norm inf; the weights were left as they were. A lower learning rate, a longer warm-up or clipping usually helps; the newest checkpoint is checkpoints/step-00000006
    ");
}

/// Even though the device was given more work before the error was known.
#[test]
fn failed_updates_of_a_device_that_goes_on_by_itself() {
    let mut trial = Trial { fault: Some(Fault::NonFinite(8)), asynchronous: true, ..Trial::default() };
    trial.settings.log_every = 100;
    let message = trial.train().map_err(|error| error.to_string());
    assert!(message.is_err_and(|message| message.starts_with("update 8: the loss is NaN")));
    assert_eq!(trial.names("checkpoints"), ["step-00000003", "step-00000006"]);
    assert!(!trial.events.contains(&"step 8".to_owned()));
}

#[test]
fn diverged_weights_are_not_saved() {
    let mut trial = Trial { fault: Some(Fault::Weights(6)), ..Trial::default() };
    let result = trial.train();
    assert_snapshot!(trial.message(result), @"cannot save step 6: parameter toy.weight is not finite; the training has diverged; the newest checkpoint is checkpoints/step-00000003");
    assert_eq!(trial.names("checkpoints"), ["step-00000003"]);
}

#[test]
fn failed_evaluations() {
    let mut trial = Trial { fault: Some(Fault::Evaluation(4)), ..Trial::default() };
    let result = trial.train();
    assert_snapshot!(trial.message(result), @"evaluation at step 4: the model's loss on the evaluation text is not a number; the newest checkpoint is checkpoints/step-00000003");
    assert_eq!(trial.names("checkpoints"), ["step-00000003"]);
}

#[test]
fn a_failure_to_save_leaves_earlier_checkpoints() {
    let mut trial = Trial { fault: Some(Fault::Export(6)), ..Trial::default() };
    let result = trial.train_until(|event| matches!(event, Event::Step { step: 4, .. }));
    assert!(!result.unwrap().finished);
    let before = contents(&trial.path("checkpoints"));
    let result = trial.train();
    assert_snapshot!(trial.message(result), @"cannot save step 6: tensor `toy.bias`: shape [3] does not match 2 values; the newest checkpoint is checkpoints/step-00000004");
    assert_eq!(contents(&trial.path("checkpoints")), before, "and nothing half written");
    trial.fault = None;
    assert!(trial.train().unwrap().finished);
}

#[test]
fn damaged_checkpoints_are_not_passed_over() {
    type Damage = fn(&mut Vec<u8>);
    let truncate: Damage = |bytes| bytes.truncate(bytes.len() - 1);
    let flip: Damage = |bytes| *bytes.last_mut().unwrap() ^= 1;
    let damage: [(&str, Damage); 7] = [
        ("model.safetensors", truncate),
        ("model.safetensors", flip),
        ("optimizer.safetensors", truncate),
        ("optimizer.safetensors", flip),
        ("training_state.json", |bytes| bytes.truncate(30)),
        ("training_state.json", |bytes| bytes.clear()),
        ("config.json", |bytes| bytes.truncate(3)),
    ];
    let mut messages = Vec::new();
    for (file, damage) in damage {
        let mut trial = interrupted();
        let path = trial.path("checkpoints/step-00000006").join(file);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let before = contents(&trial.path("checkpoints"));
        let opened = trial.opened;
        let result = trial.train();
        messages.push(trial.message(result));
        assert_eq!(trial.opened, opened);
        assert_eq!(contents(&trial.path("checkpoints")), before);
    }
    assert_snapshot!(messages.join("\n"), @r"
    the checkpoint checkpoints/step-00000006 is damaged: checkpoints/step-00000006/model.safetensors: truncated: the tensors take 32 bytes, but only 31 are there; move or delete it, and the run goes on from step 3
    the checkpoint checkpoints/step-00000006 is damaged: checkpoints/step-00000006: the hash of the weights is not the one in training_state.json; move or delete it, and the run goes on from step 3
    the checkpoint checkpoints/step-00000006 is damaged: checkpoints/step-00000006/optimizer.safetensors: truncated: the tensors take 32 bytes, but only 31 are there; move or delete it, and the run goes on from step 3
    the checkpoint checkpoints/step-00000006 is damaged: checkpoints/step-00000006: the hash of optimizer.safetensors is not the one in training_state.json; move or delete it, and the run goes on from step 3
    the checkpoint checkpoints/step-00000006 is damaged: checkpoints/step-00000006/training_state.json: EOF while parsing a value at line 3 column 12; move or delete it, and the run goes on from step 3
    the checkpoint checkpoints/step-00000006 is damaged: checkpoints/step-00000006/training_state.json: EOF while parsing a value at line 1 column 0; move or delete it, and the run goes on from step 3
    the checkpoint checkpoints/step-00000006 is damaged: checkpoints/step-00000006/config.json: EOF while parsing an object at line 2 column 1; move or delete it, and the run goes on from step 3
    ");
}

#[test]
fn advice_on_damage_works() {
    let mut trial = interrupted();
    for (newest, earlier) in [("step-00000006", "step 3"), ("step-00000003", "the beginning")] {
        let newest = trial.path("checkpoints").join(newest);
        fs::remove_file(newest.join("training_state.json")).unwrap();
        let message = trial.train().unwrap_err().to_string();
        assert!(
            message.ends_with(&format!("move or delete it, and the run goes on from {earlier}")),
            "{message}"
        );
        fs::remove_dir_all(newest).unwrap();
    }
    assert!(trial.train().unwrap().finished);
}

#[test]
fn a_model_of_other_origin_is_not_replaced() {
    let mut trial = Trial::default();
    fs::create_dir(trial.path("model")).unwrap();
    let result = trial.train();
    assert_snapshot!(trial.message(result), @"model was not written by this program, so it is not replaced");
}

#[test]
fn newer_versions() {
    let mut trial = interrupted();
    let path = trial.path("checkpoints/step-00000006/training_state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["version"] = json!(2);
    state["step"] = json!("six");
    fs::write(&path, state.to_string()).unwrap();
    let result = trial.train();
    assert_snapshot!(trial.message(result), @"checkpoints/step-00000006/training_state.json is of version 2, newer than the 1 this program reads");
}

#[test]
fn another_run_is_not_continued() {
    let changes: [fn(&mut Trial); 8] = [
        |trial| trial.settings.steps = 20,
        |trial| trial.settings.schedule.peak = 0.25,
        |trial| trial.settings.micro_batch_size = None,
        |trial| trial.settings.seed = 6,
        |trial| trial.config.d_ff = 32,
        |trial| trial.lineage.blake3 = Some("12ab".into()),
        |trial| {
            trial.identity.insert("text.files".into(), json!(["other", "sample"]));
        },
        |trial| trial.identity.clear(),
    ];
    let messages = changes.map(|change| {
        let mut trial = interrupted();
        change(&mut trial);
        let result = trial.train();
        trial.message(result)
    });
    assert_snapshot!(messages.join("\n"), @r#"
    checkpoints/step-00000006 was trained with another `steps` (10, now 20), so it cannot be continued; restore the setting or choose another directory
    checkpoints/step-00000006 was trained with another `learning_rate` (0.5, now 0.25), so it cannot be continued; restore the setting or choose another directory
    checkpoints/step-00000006 was trained with another `micro_batch_size` (2, now 4), so it cannot be continued; restore the setting or choose another directory
    checkpoints/step-00000006 was trained with another `seed` (5, now 6), so it cannot be continued; restore the setting or choose another directory
    checkpoints/step-00000006 was trained with another `model.d_ff` (16, now 32), so it cannot be continued; restore the setting or choose another directory
    checkpoints/step-00000006 was trained with another `model.weights` (null, now "12ab"), so it cannot be continued; restore the setting or choose another directory
    checkpoints/step-00000006 was trained with another `text.files` ("sample", now ["other","sample"]), so it cannot be continued; restore the setting or choose another directory
    checkpoints/step-00000006 was trained with another `text.files` ("sample", now absent), so it cannot be continued; restore the setting or choose another directory
    "#);
}

#[test]
fn a_finished_run_of_other_settings_is_not_taken_for_this_one() {
    let mut trial = Trial::default();
    trial.train().unwrap();
    trial.settings.steps = 20;
    let result = trial.train();
    assert_snapshot!(trial.message(result), @"model was trained with another `steps` (10, now 20), so it cannot be continued; restore the setting or choose another directory");
}

#[test]
fn settings_that_change_no_weight_may_change() {
    let mut trial = interrupted();
    trial.settings.keep_checkpoints = 1;
    trial.settings.checkpoint_every = 4;
    trial.settings.log_every = 1;
    trial.settings.keep_optimizer = true;
    trial.settings.evaluate_every = 3;
    assert!(trial.train().unwrap().finished);
    assert_eq!(trial.names("checkpoints"), ["step-00000008"]);
}

/// Checkpoints of earlier versions have settings under other names, and one that decides nothing.
#[test]
fn settings_under_their_earlier_names() {
    let mut trial = interrupted();
    let path = trial.path("checkpoints/step-00000006/training_state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let identity = state["identity"].as_object_mut().unwrap();
    for (earlier, present) in RENAMED {
        if let Some(value) = identity.remove(present) {
            identity.insert(earlier.into(), value);
        }
    }
    assert!(identity.contains_key("schedule.peak") && !identity.contains_key("evaluate_every"));
    identity.insert("evaluate_every".into(), json!(17));
    fs::write(&path, state.to_string()).unwrap();
    assert!(trial.train().unwrap().finished);
}

#[test]
fn one_process_at_a_time() {
    let mut trial = Trial::default();
    let lock = fs::File::create(trial.path("lock")).unwrap();
    lock.lock().unwrap();
    let result = trial.train();
    assert!(matches!(result, Err(TrainError::Locked { .. })));
    let message =
        result.unwrap_err().to_string().replace(&trial.directory.path().display().to_string(), "RUN");
    assert_snapshot!(message, @"RUN is in use by another process; two cannot train in one directory");
    drop(lock);
    assert!(trial.train().unwrap().finished);
}
