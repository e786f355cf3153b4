//! The loss of all rows, differentiated at the same time.

use t5_model::backend::{CrossEntropy, TokenLoss};

/// The loss of each row of `logits` `[rows, vocabulary]`, which become the gradient of the scaled loss.
pub fn differentiate(
    logits: &mut [f32],
    vocabulary: usize,
    labels: &[i32],
    how: CrossEntropy,
) -> Vec<TokenLoss> {
    let mut losses = vec![];
    for (logits, label) in logits.chunks_mut(vocabulary).zip(labels) {
        let Ok(label) = usize::try_from(*label) else {
            logits.fill(0.0);
            losses.push(TokenLoss::default());
            continue;
        };
        let best = (0..vocabulary).reduce(|best, id| if logits[id] > logits[best] { id } else { best });
        let largest = f64::from(logits[best.unwrap_or(0)]);
        let total: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
        let log_z = largest + total.ln();
        let loss = log_z - f64::from(logits[label]);
        losses.push(TokenLoss { loss, correct: best == Some(label) });
        // d/dlogit = scale · (p · (1 + 2 · z_loss · log Z) - [label])
        let (scale, factor) = (f64::from(how.scale), 1.0 + 2.0 * f64::from(how.z_loss) * log_z);
        for (id, logit) in logits.iter_mut().enumerate() {
            let target = f64::from(u8::from(id == label));
            *logit = (scale * ((f64::from(*logit) - log_z).exp() * factor - target)) as f32;
        }
    }
    losses
}
