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

/// What follows from other settings fits whatever they are.
#[test]
fn one_setting_is_enough() {
    for text in [
        r#"{"steps": 1}"#,
        r#"{"steps": 10}"#,
        r#"{"steps": 30, "cycles": 20}"#,
        r#"{"learning_rate": 1e-6}"#,
        r#"{"schedule": {"kind": "cosine"}}"#,
        r#"{"schedule": {"kind": "inverse_square_root"}}"#,
        r#"{"steps": 5, "schedule_offset": 100}"#,
    ] {
        let settings: Settings = serde_json::from_str(text).unwrap();
        settings.validate().unwrap_or_else(|error| panic!("{text}: {error}"));
        let rates = (0..settings.steps.min(200)).map(|step| settings.schedule.rate(step, settings.steps));
        assert!(rates.clone().all(|rate| (0.0..=settings.schedule.peak).contains(&rate)), "{text}");
    }
    let rate = |text: &str, step| {
        let settings: Settings = serde_json::from_str(text).unwrap();
        settings.schedule.rate(step, settings.steps)
    };
    assert_eq!(rate(r#"{"steps": 100}"#, 5), rate(r#"{"steps": 100, "warm_up": 10}"#, 5));
    assert_ne!(rate(r#"{"steps": 100}"#, 5), rate(r#"{"steps": 100, "warm_up": 11}"#, 5));
}

#[test]
fn unknown_keys_are_errors() {
    let error = serde_json::from_str::<Settings>(r#"{"step": 3}"#).unwrap_err().to_string();
    assert_snapshot!(error.split(" at line").next().unwrap(), @"unknown field `step`");
}

#[test]
fn problems_name_the_key() {
    let changes: [fn(&mut Settings); 15] = [
        |settings| settings.batch_size = 0,
        |settings| settings.micro_batch_size = Some(0),
        |settings| settings.micro_batch_size = Some(48),
        |settings| (settings.steps, settings.schedule.warm_up) = (100, Some(10_000)),
        |settings| (settings.schedule.cycles, settings.schedule.warm_up) = (8, Some(10_000)),
        |settings| {
            settings.steps = 1_000;
            (settings.schedule.offset, settings.schedule.warm_up) = (8_999, Some(10_000));
        },
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
    warm_up: it is 10000, but there are 100 steps in all
    warm_up: it is 10000, but each of 8 cycles has 8192 steps
    warm_up: it is 10000, but there are 9999 steps in all
    re_warm_up: it is 65536, but there are 65536 steps in all
    learning_rate: -1 is not a rate of at least 0
    clip_norm: it must be a positive number, or 0 for no clipping
    z_loss: -0.0001 is not a number of at least 0
    dropout: 1 is not a rate of at least 0 and below 1
    evaluate_every: it must be at least 1
    checkpoint_every: it must be at least 1
    keep_checkpoints: it must be at least 1
    log_every: it must be at least 1
    ");
}
