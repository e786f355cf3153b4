//! Head and loss, computed and differentiated a few rows at a time.

use t5_model::backend::{CrossEntropy, TokenLoss};
use tch::{Kind, Tensor};

use crate::operations::{TchOps, rows};
use crate::parameter::Parameter;
use crate::product::matmul;
use crate::tensor::host;

/// The number of logits held in memory at a time.
const LOGITS: usize = 1 << 21;

/// The loss of each row, and the gradients of `x` (in its shape) and of `head`; empty tensors unless they are
/// `wanted`.
pub fn cross_entropy(
    ops: &TchOps,
    x: &Tensor,
    head: &Parameter,
    labels: &[i32],
    how: CrossEntropy,
    wanted: bool,
) -> (Vec<TokenLoss>, [Tensor; 2]) {
    let (x_rows, weight) = (rows(&x.to_kind(ops.kind)), head.operand(ops.kind));
    let vocabulary = weight.size()[0] as usize;
    let step = (LOGITS / vocabulary.max(1)).max(16);
    let transposed = weight.tr();
    let mut dx = vec![];
    let mut dhead: Option<Tensor> = None;
    let mut results = vec![];
    for (index, labels) in labels.chunks(step).enumerate() {
        let counts: Vec<f32> = labels.iter().map(|label| if *label < 0 { 0.0 } else { 1.0 }).collect();
        let counts = Tensor::from_slice(&counts).to_device(ops.device).unsqueeze(1); // [rows, 1]
        let labels = labels.iter().map(|label| i64::from((*label).max(0))).collect::<Vec<_>>();
        let labels = Tensor::from_slice(&labels).to_device(ops.device).unsqueeze(1);
        let x = x_rows.narrow(0, (index * step) as i64, labels.size()[0]);
        let logits = matmul(&x, &transposed).to_kind(Kind::Float); // [rows, vocabulary]
        let right = logits.argmax(1, true).eq_tensor(&labels).to_kind(Kind::Float);
        let target = logits.gather(1, &labels, false);
        let mut logs = logits.log_softmax(1, Kind::Float);
        drop(logits);
        let target_log = logs.gather(1, &labels, false);
        results.push(Tensor::cat(&[(&target_log * &counts).neg(), right * &counts], 1)); // [rows, 2]
        if !wanted {
            continue;
        }
        // d/dlogit = scale · (p · (1 + 2 · z_loss · log Z) - [label])
        let log_z = target - target_log; // [rows, 1]
        let scale = counts * f64::from(how.scale);
        let factor = (log_z * (2.0 * f64::from(how.z_loss)) + 1.0) * &scale;
        let mut dlogits = logs.exp_();
        let _ = dlogits.g_mul_(&factor);
        let dlogits = dlogits.scatter_add_(1, &labels, &scale.neg()).to_kind(ops.kind);
        dx.push(matmul(&dlogits, &weight));
        let part = matmul(&dlogits.tr(), &x).to_kind(Kind::Float);
        dhead = Some(match dhead {
            Some(mut sum) => sum.g_add_(&part),
            None => part,
        });
    }
    // Read last, so that the host does not wait for a GPU in between.
    let losses = token_losses(&Tensor::cat(&results, 0).tr());
    let none = || Tensor::zeros([0], (Kind::Float, ops.device));
    let dx = if dx.is_empty() { none() } else { Tensor::cat(&dx, 0).view_as(x).to_kind(x.kind()) };
    (losses, [dx, dhead.unwrap_or_else(none)])
}

/// The losses of rows from `[2, rows]`: cross-entropies, and 1 for each row whose label is predicted. Waits for
/// the device.
pub fn token_losses(results: &Tensor) -> Vec<TokenLoss> {
    let results = host(results).data;
    let (losses, correct) = results.split_at(results.len() / 2);
    let token = |(loss, correct): (&f32, &f32)| TokenLoss { loss: f64::from(*loss), correct: *correct > 0.0 };
    losses.iter().zip(correct).map(token).collect()
}
