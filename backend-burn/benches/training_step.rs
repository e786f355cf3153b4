//! A training step on the CPU: forward, backward and AdamW, f32.
//!
//! This finds small changes; `cargo xtask bench train` compares the backends with each other and with
//! transformers.

use std::slice::from_ref;

use backend_burn as _;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use t5_model::{Batch, Dropout, Initialization, Optimizer, T5Config, Update, backend, initialize};

/// A model and its batch.
struct Case {
    name: &'static str,
    config: T5Config,
    /// Examples, and tokens of an input and a target.
    batch: [usize; 3],
    devices: &'static [&'static str],
    samples: usize,
}

fn cases() -> [Case; 2] {
    [
        Case {
            name: "d_model 256, 4 + 4 layers, batch 16 x (128 + 32)",
            config: T5Config::v1_1(8192, 256, 4, 64, 512, 4),
            batch: [16, 128, 32],
            devices: &["cpu", "cpu-plain"],
            samples: 20,
        },
        Case {
            name: "T5-Small, batch 8 x (512 + 114)",
            config: T5Config::v1_1(32128, 512, 6, 64, 1024, 8),
            batch: [8, 512, 114],
            devices: &["cpu"],
            samples: 10,
        },
    ]
}

fn training_step(criterion: &mut Criterion) {
    for Case { name, config, batch: [size, input, target], devices, samples } in cases() {
        let ids = |count: usize| (0..count as i32).map(|i| 2 + (i * 7919) % 8190).collect::<Vec<_>>();
        let (inputs, targets) = (ids(size * input), ids(size * target));
        let batch = Batch::padded(inputs.chunks(input).zip(targets.chunks(target)), 0);
        let weights = initialize(&config, Initialization::T5, 1).expect("a valid configuration");
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements((size * (input + target)) as u64)).sample_size(samples);
        for device in devices {
            let burn = backend("burn").expect("this crate registers it");
            let mut session =
                burn.open(&t5_model::Computation::on(*device), &config, &weights).expect("a session");
            let mut step = 0;
            group.bench_function(*device, |bencher| {
                bencher.iter(|| {
                    step += 1;
                    let update = Update {
                        optimizer: Optimizer::adamw(),
                        learning_rate: 1e-3,
                        step,
                        optimizer_step: step,
                        clip_norm: None,
                        z_loss: 0.0,
                        dropout: Dropout::default(),
                    };
                    session.train_step(from_ref(&batch), &update).expect("a finite loss")
                })
            });
        }
        group.finish();
    }
}

criterion_group!(benches, training_step);
criterion_main!(benches);
