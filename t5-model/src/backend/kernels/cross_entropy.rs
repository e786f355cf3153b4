//! The output head and the loss in one operation: logits exist only for a few rows at a time.

use crate::backend::{CrossEntropy, TokenLoss};
use rayon::prelude::*;

use super::matmul::{Into, Matrix, Threads, matmul};
use super::vector::{exp, max, sum};
use super::{buffer, elementwise};

/// The number of logits held in memory at a time.
const LOGITS: usize = 1 << 22;

/// The gradients of the scaled loss.
pub struct HeadGradients {
    /// `[rows, features]`.
    pub x: Vec<f32>,
    /// `[vocabulary, features]`.
    pub head: Vec<f32>,
}

/// The loss of `labels` `[rows]` given `x` `[rows, features]` and `head` `[vocabulary, features]`: its scaled
/// value, that of each row, and its gradients if wanted.
pub fn cross_entropy(
    x: &[f32],
    head: &[f32],
    features: usize,
    labels: &[i32],
    how: CrossEntropy,
    with_gradients: bool,
) -> (f64, Vec<TokenLoss>, Option<HeadGradients>) {
    let vocabulary = head.len() / features;
    let step = (LOGITS / vocabulary).clamp(16, 1024);
    let mut gradients =
        with_gradients.then(|| HeadGradients { x: buffer(x.len()), head: buffer(head.len()) });
    let weight = Matrix::new(head, vocabulary, features);
    let mut logits = buffer(step.min(labels.len()) * vocabulary);
    let (mut scaled, mut losses) = (0.0, Vec::with_capacity(labels.len()));
    let mut head_gradient = Into::Replace;
    for (index, (x, labels)) in x.chunks(step * features).zip(labels.chunks(step)).enumerate() {
        let rows = labels.len();
        let logits = &mut logits[..rows * vocabulary];
        let x = Matrix::new(x, rows, features);
        matmul(logits, vocabulary, x, weight.transposed(), Into::Replace, Threads::All);
        let each: Vec<RowLoss> = logits
            .par_chunks_mut(vocabulary)
            .zip(labels)
            .map(|(logits, label)| row(logits, *label, how, with_gradients))
            .collect();
        for row in each {
            scaled += f64::from(how.scale) * (row.token.loss + f64::from(how.z_loss) * row.log_z * row.log_z);
            losses.push(row.token);
        }
        if let Some(gradients) = &mut gradients {
            let dlogits = Matrix::new(logits, rows, vocabulary);
            let start = index * step * features;
            let dx = &mut gradients.x[start..start + rows * features];
            matmul(dx, features, dlogits, weight, Into::Replace, Threads::All);
            matmul(&mut gradients.head, features, dlogits.transposed(), x, head_gradient, Threads::All);
            head_gradient = Into::Add;
        }
    }
    (scaled, losses, gradients)
}

#[derive(Default)]
struct RowLoss {
    token: TokenLoss,
    log_z: f64,
}

/// A row's loss; replaces the logits with their gradient if wanted.
fn row(logits: &mut [f32], label: i32, how: CrossEntropy, with_gradient: bool) -> RowLoss {
    let Ok(label) = usize::try_from(label) else {
        logits.fill(0.0);
        return RowLoss::default();
    };
    let largest = max(logits);
    let target = logits[label];
    let correct = target == largest && logits[..label].iter().all(|logit| *logit < largest);
    for logit in logits.iter_mut() {
        *logit = exp(*logit - largest);
    }
    let total = sum(logits);
    let log_z = f64::from(largest) + f64::from(total).ln();
    if with_gradient {
        let factor = how.scale * (1.0 + 2.0 * how.z_loss * log_z as f32) / total;
        logits.iter_mut().for_each(|logit| *logit *= factor);
        logits[label] -= how.scale;
    }
    RowLoss { token: TokenLoss { loss: log_z - f64::from(target), correct }, log_z }
}

impl HeadGradients {
    /// The gradients of the loss times a factor.
    pub fn scaled(self, factor: f32) -> Self {
        if factor == 1.0 {
            return self;
        }
        let scale = |values: Vec<f32>| elementwise::map(&values, |value| value * factor);
        HeadGradients { x: scale(self.x), head: scale(self.head) }
    }
}
