//! Settings: the defaults, and errors in others.

use insta::assert_snapshot;
use t5_model::Schedule;
use t5_model::train::Settings;

#[test]
fn defaults() {
    let settings = Settings::default();
    settings.validate().unwrap();
    assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), settings);
    assert_snapshot!(serde_json::to_string_pretty(&settings).unwrap());
}

#[test]
fn unknown_keys_are_errors() {
    let error = serde_json::from_str::<Settings>(r#"{"step": 3}"#).unwrap_err().to_string();
    assert_snapshot!(error.split(", expected").next().unwrap(), @"unknown field `step`");
}

#[test]
fn problems_name_the_key() {
    let changes: [fn(&mut Settings); 15] = [
        |settings| settings.batch_size = 0,
        |settings| settings.micro_batch_size = Some(0),
        |settings| settings.micro_batch_size = Some(48),
        |settings| settings.steps = 100,
        |settings| settings.schedule.cycles = 8,
        |settings| (settings.steps, settings.schedule.offset) = (1_000, 8_999),
        |settings| settings.schedule.re_warm_up = 65_536,
        |settings| settings.schedule = Schedule::constant(-1.0),
        |settings| settings.clip_norm = Some(f64::NAN),
        |settings| settings.z_loss = -1e-4,
        |settings| settings.dropout = 1.0,
        |settings| settings.evaluate_every = 0,
        |settings| settings.checkpoint_every = 0,
        |settings| settings.keep_checkpoints = 0,
        |settings| settings.log_every = 0,
    ];
    let messages = changes.map(|change| {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.validate().unwrap_err().to_string()
    });
    assert_snapshot!(messages.join("\n"), @r"
    batch_size: it must be at least 1
    micro_batch_size: it must be at least 1
    micro_batch_size: 48 does not divide batch_size 128
    schedule: warm_up is 10000, but there are 100 steps in all
    schedule: warm_up is 10000, but each of 8 cycles has 8192 steps
    schedule: warm_up is 10000, but there are 9999 steps in all
    schedule: re_warm_up is 65536, but there are 65536 steps in all
    schedule: peak is -1; a rate is at least 0
    clip_norm: it must be a positive number, or 0 for no clipping
    z_loss: -0.0001 is not a number of at least 0
    dropout: 1 is not a rate of at least 0 and below 1
    evaluate_every: it must be at least 1
    checkpoint_every: it must be at least 1
    keep_checkpoints: it must be at least 1
    log_every: it must be at least 1
    ");
}
