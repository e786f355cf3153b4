//! How many operations a training step takes. A GPU waits for each to be launched.

use backend_tch::Operations;
use t5_model::{
    Batch, Computation, Dropout, Initialization, Optimizer, Precision, T5Config, Update, backend, initialize,
};

/// The paper's T5-Small. What counts does not depend on the lengths, but for head and loss, whose logits come
/// in pieces.
#[test]
fn a_step_of_t5_small() {
    let config = T5Config::v1_1(32_128, 512, 6, 64, 1024, 8);
    let weights = initialize(&config, Initialization::T5, 1).unwrap();
    let ids: Vec<i32> = (0..48).map(|i| 2 + i * 37 % 32_000).collect();
    let batch = Batch::padded([(&ids[..32], &ids[32..]), (&ids[8..40], &ids[..16])], 0);
    let update = |step| Update {
        optimizer: Optimizer::adamw(),
        learning_rate: 1e-3,
        step,
        optimizer_step: step,
        clip_norm: Some(1.0),
        z_loss: 1e-4,
        dropout: Dropout::default(),
    };
    // On a CPU, bf16 takes conversions that a GPU's kernels do on their way.
    for (precision, most) in [(Precision::F32, 1500), (Precision::Bf16, 1700)] {
        let how = Computation { precision, ..Computation::on("cpu") };
        let mut session = backend("tch").unwrap().open(&how, &config, &weights).unwrap();
        session.train_step(std::slice::from_ref(&batch), &update(1)).unwrap();
        let step = || session.begin_step(std::slice::from_ref(&batch), &update(2)).unwrap();
        let ((), operations) = Operations::of(step);
        let (work, reads) = (operations.work(), operations.reads());
        println!("{precision}: {work} operations, {reads} reads");
        assert!(work <= most && reads <= 1, "{precision}: {work}, {reads}: {:?}", operations.by_frequency());
    }
}
