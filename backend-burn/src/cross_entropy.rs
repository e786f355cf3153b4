//! Head and loss on burn's devices, computed and differentiated a few rows at a time.

use burn::tensor::{FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};
use t5_model::backend::{CrossEntropy, TokenLoss};

/// The number of logits held in memory at a time.
const LOGITS: usize = 1 << 24;

/// The loss of each row of `x` `[rows, features]`, and, if `wanted`, the gradients of `x` and of `head`
/// `[vocabulary, features]`. Nothing is recorded.
pub fn cross_entropy(
    x: Tensor<2>,
    head: Tensor<2>,
    labels: &[i32],
    how: CrossEntropy,
    wanted: bool,
) -> (Vec<TokenLoss>, Option<[Tensor<2>; 2]>) {
    let (dtype, device) = (FloatDType::from(x.dtype()), x.device());
    let [vocabulary, _] = head.dims();
    let step = (LOGITS / vocabulary.max(1)).max(16);
    let (mut losses, mut rights, mut dx) = (vec![], vec![], vec![]);
    let mut dhead: Option<Tensor<2>> = None;
    for (index, labels) in labels.chunks(step).enumerate() {
        let rows = labels.len();
        let counts: Vec<f32> = labels.iter().map(|label| if *label < 0 { 0.0 } else { 1.0 }).collect();
        let counts = Tensor::<2>::from_data(TensorData::new(counts, [rows, 1]), &device);
        let ids: Vec<i32> = labels.iter().map(|label| (*label).max(0)).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, 1]), &device);
        let x = x.clone().narrow(0, index * step, rows);
        let logits = x.clone().matmul(head.clone().transpose()).cast(FloatDType::F32); // [rows, vocabulary]
        let right = logits.clone().argmax(1).equal(ids.clone()).float();
        let target = logits.clone().gather(1, ids.clone());
        let largest = logits.clone().max_dim(1); // [rows, 1]
        let exponentials = (logits - largest.clone()).exp();
        let total = exponentials.clone().sum_dim(1);
        let log_z = total.clone().log() + largest;
        losses.push((log_z.clone() - target) * counts.clone());
        rights.push(right * counts.clone());
        if !wanted {
            continue;
        }
        // d/dlogit = scale · (p · (1 + 2 · z_loss · log Z) - [label])
        let scale = counts * how.scale;
        let factor = (log_z * (2.0 * how.z_loss) + 1.0) * scale.clone() / total;
        let dlogits = (exponentials * factor).scatter(1, ids, scale.neg(), IndexingUpdateOp::Add).cast(dtype);
        dx.push(dlogits.clone().matmul(head.clone()));
        let part = dlogits.transpose().matmul(x).cast(FloatDType::F32);
        dhead = Some(match dhead {
            Some(sum) => sum + part,
            None => part,
        });
    }
    // Read last and all at once, so that the host does not wait for a GPU in between.
    losses.append(&mut rights);
    let rows: Vec<f32> = Tensor::cat(losses, 0).into_data().iter::<f32>().collect();
    let (losses, rights) = rows.split_at(labels.len());
    let token = |(loss, right): (&f32, &f32)| TokenLoss { loss: f64::from(*loss), correct: *right > 0.0 };
    let losses = losses.iter().zip(rights).map(token).collect();
    (losses, dhead.map(|dhead| [Tensor::cat(dx, 0), dhead]))
}
