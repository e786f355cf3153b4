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
    let count = |device: &str, precision, most| {
        let how = Computation { precision, ..Computation::on(device) };
        let mut session = backend("tch").unwrap().open(&how, &config, &weights).unwrap();
        session.train_step(std::slice::from_ref(&batch), &update(1)).unwrap();
        let step = || session.begin_step(std::slice::from_ref(&batch), &update(2)).unwrap();
        let ((), operations) = Operations::of(step);
        let (work, reads) = (operations.work(), operations.reads());
        println!("{device} {precision}: {work} operations, {reads} reads");
        let counts = operations.by_frequency();
        assert!(work <= most && reads == 0, "{device} {precision}: {work}, {reads}: {counts:?}");
    };
    // On a CPU, bf16 takes conversions that a GPU's kernels do on their way.
    count("cpu", Precision::F32, 1500);
    count("cpu", Precision::Bf16, 1700);
    #[cfg(feature = "emulator")]
    {
        let launches = || backend_tch::emulator::launches("sm_90a");
        // The logits come in a piece for every row or two.
        count("emulated:sm_90a", Precision::Bf16, 700);
        let all = launches();
        count("emulated:sm_90a", Precision::Bf16, 700);
        let of_a_step = (launches() - all) / 2;
        println!("{of_a_step} kernels of our own in each of these steps");
        assert!(of_a_step <= 300, "{of_a_step}");
    }
}
