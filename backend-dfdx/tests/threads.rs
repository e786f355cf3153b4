//! What a training comes to on any number of threads.

use backend_dfdx as _;
use t5_model::{
    Batch, Computation, Dropout, Initialization, Optimizer, T5Config, Update, backend, initialize,
};

/// The same bits. Products of a thousand rows and more are split among threads.
#[test]
fn training_does_not_depend_on_threads() {
    let config = T5Config::v1_1(512, 64, 2, 32, 128, 2);
    let weights = initialize(&config, Initialization::T5, 1).unwrap();
    let ids: Vec<i32> = (0..16 * 64).map(|i| 2 + (i * 37) % 500).collect();
    let batch = Batch::padded(ids.chunks(64).map(|row| (row, &row[..40])), 0);
    let train = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut session =
                backend("dfdx").unwrap().open(&Computation::on("cpu"), &config, &weights).unwrap();
            for step in 1..=3 {
                let update = Update {
                    optimizer: Optimizer::adamw(),
                    learning_rate: 1e-3,
                    step,
                    optimizer_step: step,
                    clip_norm: None,
                    z_loss: 0.0,
                    dropout: Dropout { rate: 0.1, seed: 5 },
                };
                session.train_step(std::slice::from_ref(&batch), &update).unwrap();
            }
            session.export().unwrap()
        })
    };
    let one = train(1);
    assert!(one == train(2) && one == train(3));
}
