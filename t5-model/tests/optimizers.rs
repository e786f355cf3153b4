//! Optimisers and schedules compared with PyTorch, transformers and nanoT5; the numbers are from
//! `goldens/optimizer_goldens.py`.

use std::path::{Path, PathBuf};

use fusion_core::checkpoint::TensorFile;
use fusion_core::{HostTensor, TensorSource};
use serde_json::Value;
use t5_model::optimizer::{DecayShape, Moments, ParameterUpdate, Role};
use t5_model::{Decay, Optimizer, Schedule};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn tensor(file: &TensorFile, name: &str) -> HostTensor {
    file.load_f32(name).unwrap()
}

/// The largest difference over the largest value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

fn optimizer(run: &str) -> Optimizer {
    let decayed = |optimizer| match optimizer {
        Optimizer::Adamw { beta1, beta2, epsilon, .. } => {
            Optimizer::Adamw { beta1, beta2, epsilon, weight_decay: 0.01 }
        }
        Optimizer::AdamwScale { beta1, beta2, epsilon, .. } => {
            Optimizer::AdamwScale { beta1, beta2, epsilon, weight_decay: 0.01 }
        }
        Optimizer::Muon { momentum, beta1, beta2, epsilon, .. } => {
            Optimizer::Muon { momentum, beta1, beta2, epsilon, weight_decay: 0.01 }
        }
        other => other,
    };
    match run {
        "adamw" => Optimizer::adamw(),
        "adamw_decay" => decayed(Optimizer::adamw()),
        "adamw_scale" => Optimizer::adamw_scale(),
        "adamw_scale_decay" => decayed(Optimizer::adamw_scale()),
        "muon" => Optimizer::muon(),
        "muon_decay" => decayed(Optimizer::muon()),
        _ => Optimizer::adafactor(),
    }
}

#[test]
fn trajectories_of_20_steps() {
    let file = TensorFile::open(&golden("optimizers.safetensors")).unwrap();
    let (rates, scales) = (tensor(&file, "learning_rate").data, tensor(&file, "gradient_scale").data);
    let runs = [
        ("adamw", &["matrix", "vector", "small"][..]),
        ("adamw_decay", &["matrix", "vector", "small"]),
        ("adamw_scale", &["matrix", "vector", "small"]),
        ("adamw_scale_decay", &["matrix", "vector", "small"]),
        ("muon", &["factored", "matrix", "small"]),
        ("muon_decay", &["matrix"]),
        ("adafactor", &["factored", "vector"]),
        ("adafactor_t5x", &["matrix", "small"]),
    ];
    for (run, names) in runs {
        for name in names {
            let initial = tensor(&file, &format!("initial.{name}"));
            let gradients = tensor(&file, &format!("gradient.{name}")).data;
            let path = tensor(&file, &format!("{run}.{name}"));
            let (mut weights, mut moments) = (initial.data, Moments::default());
            let mut compared = 0;
            for step in 0..rates.len() {
                let gradient = &gradients[step % 3 * weights.len()..][..weights.len()];
                let update = ParameterUpdate {
                    optimizer: optimizer(run),
                    learning_rate: f64::from(rates[step]),
                    step: step as u64 + 1,
                    gradient_scale: scales[step],
                    role: Role::Matrix,
                };
                update.apply(&initial.shape, &mut weights, gradient, &mut moments);
                // The large parameter stores only its first and last steps.
                let last = path.shape[0] - 1;
                let index = if last == 1 { [Some(0), Some(1)][step.min(1)] } else { Some(step) };
                if let Some(index) = index.filter(|_| last > 1 || step == 0 || step + 1 == rates.len()) {
                    let expected = &path.data[index * weights.len()..][..weights.len()];
                    let error = error(&weights, expected);
                    // Every update of Muon passes through fifteen products of matrices.
                    let allowed = if run.starts_with("muon") { 2e-5 } else { 2e-6 };
                    assert!(error < allowed, "{run} of {name}, step {}: off by {error:e}", step + 1);
                    compared += 1;
                }
            }
            assert_eq!(compared, path.shape[0], "{run} of {name}");
            let golden_names = [
                ("exp_avg", "exp_avg"),
                ("exp_avg_sq", if run.starts_with("adamw") { "exp_avg_sq" } else { "second_moment" }),
                ("exp_avg_sq_row", "row"),
                ("exp_avg_sq_col", "column"),
            ];
            for (moment, found) in moments.iter().filter(|_| !(run == "muon" && *name == "factored")) {
                let golden_name = golden_names.iter().find(|(ours, _)| *ours == moment).unwrap().1;
                let expected = tensor(&file, &format!("{run}.{name}.{golden_name}"));
                assert_eq!(found.shape, expected.shape);
                let error = error(&found.data, &expected.data);
                assert!(error < 2e-6, "{run} of {name}: {moment} is off by {error:e}");
            }
        }
    }
}

#[test]
fn schedules() {
    let goldens: Value =
        serde_json::from_str(&std::fs::read_to_string(golden("schedules.json")).unwrap()).unwrap();
    let number = |golden: &Value, key: &str| golden[key].as_f64().unwrap_or(0.0);
    for (name, golden) in goldens.as_object().unwrap() {
        let base = number(golden, "base");
        let warm_up = number(golden, "warmup") as u64;
        let minimum = number(golden, "minimum");
        let once = |decay| Schedule { warm_up: Some(warm_up), decay, ..Schedule::constant(base) };
        let cosine = once(Decay::Cosine { minimum });
        let root = Decay::InverseSquareRoot { timescale: warm_up };
        let schedule = match name.as_str() {
            "constant_with_warmup" => once(Decay::Constant),
            "linear_with_warmup" => once(Decay::Linear { minimum: 0.0 }),
            "cosine_with_warmup" | "cosine_with_min_lr" => cosine,
            "nano_t5_cosine" => Schedule { warm_up_from: 0.5, ..cosine },
            // There a minimum is also where the warm-up starts.
            name if name.starts_with("wsd_") => {
                let decay_shape = serde_json::from_value(golden["decay"].clone()).unwrap();
                let decay_steps = golden["decay_steps"].as_u64();
                let decay = Decay::WarmupStableDecay { decay_share: 0.1, decay_steps, decay_shape, minimum };
                Schedule { warm_up_from: minimum / base, ..once(decay) }
            }
            // T5X multiplies by the square root of the offset from the start.
            "inverse_square_root" => {
                Schedule { warm_up: Some(0), peak: base / (warm_up as f64).sqrt(), ..once(root) }
            }
            "inverse_square_root_with_warmup" => {
                Schedule { peak: base / (warm_up as f64).sqrt(), ..once(root) }
            }
            other => panic!("no schedule for {other}"),
        };
        for value in golden["values"].as_array().unwrap() {
            let (step, rate) = (value[0].as_u64().unwrap(), value[1].as_f64().unwrap());
            let found = schedule.rate(step, number(golden, "total") as u64);
            assert!((found - rate).abs() <= 1e-9 * base, "{name} at {step}: {found} for {rate}");
        }
    }
}

#[test]
fn cycles_repeat_warm_up_and_decay() {
    let decay = Decay::Linear { minimum: 0.0 };
    let schedule = Schedule { warm_up: Some(10), decay, cycles: 3, ..Schedule::constant(1.0) };
    let rates: Vec<f64> = [0, 10, 55, 99, 100, 110, 299].map(|step| schedule.rate(step, 300)).to_vec();
    let last = 1.0 - 89.0 / 90.0;
    let expected = [0.0, 1.0, 0.5, last, 0.0, 1.0, last];
    assert!(rates.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{rates:?}");
}

/// Stable until the last steps, which are a share of all steps, or of each cycle's.
fn stable(decay_steps: Option<u64>) -> Decay {
    Decay::WarmupStableDecay { decay_share: 0.2, decay_steps, decay_shape: DecayShape::Linear, minimum: 0.1 }
}

#[test]
fn a_decay_is_a_share_of_the_steps() {
    let schedule = Schedule { warm_up: Some(10), decay: stable(None), ..Schedule::constant(1.0) };
    let rates = |schedule: &Schedule, at: &[u64], total| -> Vec<f64> {
        at.iter().map(|step| schedule.rate(*step, total)).collect()
    };
    let close = |found: &[f64], expected: &[f64]| {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} for {expected:?}");
    };
    close(&rates(&schedule, &[5, 10, 79, 80, 90, 99, 100], 100), &[0.5, 1.0, 1.0, 1.0, 0.55, 0.145, 0.1]);
    let cycles = Schedule { cycles: 2, ..schedule.clone() };
    close(&rates(&cycles, &[39, 40, 45, 55, 60, 95], 100), &[1.0, 1.0, 0.55, 0.5, 1.0, 0.55]);
    let all = Decay::WarmupStableDecay {
        decay_share: 1.0,
        decay_steps: None,
        decay_shape: DecayShape::Cosine,
        minimum: 0.1,
    };
    let (all, cosine) = (
        Schedule { decay: all, ..schedule.clone() },
        Schedule { decay: Decay::Cosine { minimum: 0.1 }, ..schedule.clone() },
    );
    (0..=100).for_each(|step| assert_eq!(all.rate(step, 100), cosine.rate(step, 100)));
    let none = Schedule { decay: stable(Some(0)), ..schedule };
    close(&rates(&none, &[50, 99], 100), &[1.0, 1.0]);
}

/// A training run of 300 updates that follows one of 100 has the rates of the last 300 of 400, except for a
/// second warm-up.
#[test]
fn schedules_go_on() {
    for decay in [
        Decay::Constant,
        Decay::InverseSquareRoot { timescale: 50 },
        Decay::Cosine { minimum: 0.1 },
        Decay::Linear { minimum: 0.1 },
        stable(Some(90)),
    ] {
        for (warm_up, cycles) in [(10, 1), (10, 4), (120, 1)] {
            let whole = Schedule { warm_up: Some(warm_up), decay, cycles, ..Schedule::constant(1.0) };
            let rest = Schedule { offset: 100, ..whole.clone() };
            let warmed = Schedule { re_warm_up: 20, ..rest.clone() };
            for updates in 0..300 {
                let expected = whole.rate(100 + updates, 400);
                assert_eq!(rest.rate(updates, 300), expected, "{whole:?} {updates}");
                let share = (updates as f64 / 20.0).min(1.0);
                assert_eq!(warmed.rate(updates, 300), share * expected, "{whole:?} {updates}");
            }
        }
    }
}

/// The same bits on any number of threads.
#[test]
fn updates_do_not_depend_on_threads() {
    let shape = [200, 300];
    let values = |seed: u64| {
        let mut values = vec![0.0; 60_000];
        fusion_core::random::Philox::new(seed, "values").fill_normal(0, 1.0, &mut values);
        values
    };
    for optimizer in [Optimizer::adamw(), Optimizer::adamw_scale(), Optimizer::adafactor(), Optimizer::muon()]
    {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let update = ParameterUpdate {
                optimizer,
                learning_rate: 0.1,
                step: 1,
                gradient_scale: 0.3,
                role: Role::Matrix,
            };
            let (mut weights, mut moments) = (values(1), Moments::default());
            pool.install(|| update.apply(&shape, &mut weights, &values(2), &mut moments));
            (weights, moments)
        };
        assert!(run(1) == run(3), "{optimizer:?}");
    }
}
