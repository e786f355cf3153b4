//! What training on the fused kernels comes to: the same as on burn's own operations, and on any number of
//! threads.

use backend_burn as _;
use fusion_core::{HostTensor, TensorSource};
use t5_model::{Batch, Session, T5Config};

fn open_on(device: &str, config: &T5Config, weights: &dyn TensorSource) -> Box<dyn Session> {
    t5_model::backend("burn").unwrap().open(&t5_model::Computation::on(device), config, weights).unwrap()
}

/// The largest difference over the largest value.
fn relative_error(found: &HostTensor, expected: &HostTensor) -> f64 {
    assert_eq!(found.shape, expected.shape);
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0f32, |a, b| a.max(b.abs()));
    let difference = largest(&mut found.data.iter().zip(&expected.data).map(|(a, b)| a - b));
    f64::from(difference / largest(&mut expected.data.iter().copied()))
}

/// Two updates with dropout, gradient accumulation, clipping and z-loss, in groups of unequal width: the
/// fused kernels against burn's own operations and gradients.
#[test]
fn training_is_the_same_with_fused_and_plain_operations() {
    for (gated, tied) in [(true, false), (false, true)] {
        let mut config = T5Config::v1_1(67, 20, 3, 6, 27, 2);
        config.rms_norm_groups = vec![7, 13];
        config.tie_word_embeddings = tied;
        if !gated {
            config.feed_forward_proj = t5_model::FeedForward::Relu;
        }
        let weights = t5_model::initialize(&config, t5_model::Initialization::T5, 1).unwrap();
        let rows: Vec<Vec<i32>> =
            (0..6).map(|row| (0..9 + row).map(|i| 2 + (i * 7 + row * 5) % 60).collect()).collect();
        let batch = |rows: &[Vec<i32>]| Batch::padded(rows.iter().map(|row| (&row[..], &row[3..])), 0);
        let batches = [batch(&rows[..2]), batch(&rows[2..])];
        let train = |device: &str| {
            let mut session = open_on(device, &config, &weights);
            for step in 1..=2 {
                let update = t5_model::Update {
                    optimizer: t5_model::Optimizer::adafactor(),
                    learning_rate: 0.1,
                    step,
                    optimizer_step: step,
                    clip_norm: Some(0.5),
                    z_loss: 1e-2,
                    dropout: t5_model::Dropout { rate: 0.2, seed: 5 },
                };
                session.train_step(&batches, &update).unwrap();
            }
            session.export().unwrap()
        };
        let (fused, plain) = (train("cpu"), train("cpu-plain"));
        for (name, plain) in &plain {
            let error = relative_error(&fused[name], plain);
            assert!(error < 1e-4, "{name} is off by {error:e}");
        }
    }
}

/// The same bits on any number of threads, and again.
#[test]
fn training_does_not_depend_on_threads() {
    let config = T5Config::v1_1(512, 64, 2, 32, 128, 2);
    let weights = t5_model::initialize(&config, t5_model::Initialization::T5, 1).unwrap();
    let ids: Vec<i32> = (0..8 * 64).map(|i| 2 + (i * 37) % 500).collect();
    let batch = Batch::padded(ids.chunks(64).map(|row| (row, &row[..40])), 0);
    let train = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut session = open_on("cpu", &config, &weights);
            for step in 1..=3 {
                let update = t5_model::Update {
                    optimizer: t5_model::Optimizer::adamw(),
                    learning_rate: 1e-3,
                    step,
                    optimizer_step: step,
                    clip_norm: None,
                    z_loss: 0.0,
                    dropout: t5_model::Dropout { rate: 0.1, seed: 5 },
                };
                session.train_step(std::slice::from_ref(&batch), &update).unwrap();
            }
            session.export().unwrap()
        })
    };
    let one = train(1);
    assert!(one == train(2) && one == train(3));
}
