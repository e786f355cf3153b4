//! AdamW, and nanoT5's variant with updates scaled by the weights.

use rayon::prelude::*;

use super::{CHUNK, Moments, Optimizer, ParameterUpdate, parameter_scale};

pub(super) fn apply(
    update: &ParameterUpdate,
    shape: &[usize],
    weights: &mut [f32],
    gradient: &[f32],
    moments: &mut Moments,
) {
    let (scaled, beta1, beta2, epsilon, weight_decay) = match update.optimizer {
        Optimizer::Adamw { beta1, beta2, epsilon, weight_decay } => {
            (false, beta1, beta2, epsilon, weight_decay)
        }
        Optimizer::AdamwScale { beta1, beta2, epsilon, weight_decay } => {
            (true, beta1, beta2, epsilon, weight_decay)
        }
        Optimizer::Adafactor { .. } => return,
    };
    let rate = update.learning_rate;
    let steps = i32::try_from(update.step).unwrap_or(i32::MAX);
    let (correction1, correction2) = (1.0 - beta1.powi(steps), (1.0 - beta2.powi(steps)).sqrt());
    let weight_decay = if update.decay { weight_decay } else { 0.0 };
    // AdamW divides by sqrt(v) / correction2 + epsilon, AdamWScale by (sqrt(v) + epsilon) / correction2.
    let step_size = rate * correction2 / correction1;
    let (step_size, epsilon) = match scaled {
        true => (step_size * parameter_scale(weights), epsilon),
        false => (step_size, epsilon * correction2),
    };
    // AdamW decays before the update, AdamWScale after it.
    let kept = (1.0 - rate * weight_decay) as f32;
    let (before, after) = if scaled { (1.0, kept) } else { (kept, 1.0) };
    let (step_size, epsilon) = (step_size as f32, epsilon as f32);
    let (beta1, rest1) = (beta1 as f32, (1.0 - beta1) as f32);
    let (beta2, rest2) = (beta2 as f32, (1.0 - beta2) as f32);
    let gradient_scale = update.gradient_scale;

    let (first, second) = moments.pair(("exp_avg", shape), ("exp_avg_sq", shape));
    weights
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
        .for_each(|((weights, gradient), (first, second))| {
            for (((w, g), m), v) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
                let g = g * gradient_scale;
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * (g * g);
                *w = (*w * before - step_size * *m / (v.sqrt() + epsilon)) * after;
            }
        });
}
