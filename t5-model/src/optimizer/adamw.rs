//! AdamW, and nanoT5's variant with updates scaled by the weights.

use fusion_core::HostTensor;
use rayon::prelude::*;

use super::{CHUNK, Moments, ParameterUpdate, Role, parameter_scale, zeros};

/// A step of AdamW with its constants precomputed; `g` is the gradient times `gradient_scale`:
///
/// `m ← beta1 · m + rest1 · g`, `v ← beta2 · v + rest2 · g²`,
/// `w ← (w · before - step · m / (√v + epsilon)) · after`
#[derive(Clone, Copy, Debug)]
pub struct AdamwStep {
    /// Factor for the gradient, from clipping.
    pub gradient_scale: f32,
    /// Decay of `m`.
    pub beta1: f32,
    /// `1 - beta1`, rounded once.
    pub rest1: f32,
    /// Decay of `v`.
    pub beta2: f32,
    /// `1 - beta2`, rounded once.
    pub rest2: f32,
    /// To be multiplied by `max(1e-3, RMS(w))` if [`AdamwStep::relative`].
    pub step: f64,
    /// Added to the root of `v`.
    pub epsilon: f32,
    /// AdamW decays before the update, AdamWScale after it.
    pub before: f32,
    /// Either `before` or `after` is 1.
    pub after: f32,
    /// Whether the step is relative to the weights' size, as in AdamWScale.
    pub relative: bool,
}

impl AdamwStep {
    /// `betas` as in [`Optimizer`](super::Optimizer); `relative` for AdamWScale.
    pub(super) fn new(
        update: &ParameterUpdate,
        [beta1, beta2]: [f64; 2],
        epsilon: f64,
        weight_decay: f64,
        relative: bool,
    ) -> Self {
        let rate = update.learning_rate;
        let steps = i32::try_from(update.step).unwrap_or(i32::MAX);
        let (correction1, correction2) = (1.0 - beta1.powi(steps), (1.0 - beta2.powi(steps)).sqrt());
        let weight_decay = if update.role == Role::Gain { 0.0 } else { weight_decay };
        let kept = (1.0 - rate * weight_decay) as f32;
        let (before, after) = if relative { (1.0, kept) } else { (kept, 1.0) };
        // AdamW divides by sqrt(v) / correction2 + epsilon, AdamWScale by (sqrt(v) + epsilon) / correction2.
        let epsilon = if relative { epsilon } else { epsilon * correction2 } as f32;
        AdamwStep {
            gradient_scale: update.gradient_scale,
            beta1: beta1 as f32,
            rest1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            rest2: (1.0 - beta2) as f32,
            step: rate * correction2 / correction1,
            epsilon,
            before,
            after,
            relative,
        }
    }

    pub(super) fn apply(
        self,
        shape: &[usize],
        weights: &mut [f32],
        gradient: &[f32],
        moments: &mut Moments<HostTensor>,
    ) {
        let AdamwStep { gradient_scale, beta1, rest1, beta2, rest2, epsilon, before, after, .. } = self;
        let step = (self.step * if self.relative { parameter_scale(weights) } else { 1.0 }) as f32;
        let (mean, squares) = moments.mean_and_squares(shape, zeros);
        weights
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(mean.data.par_chunks_mut(CHUNK).zip(squares.data.par_chunks_mut(CHUNK)))
            .for_each(|((weights, gradient), (mean, squares))| {
                for (((w, g), m), v) in weights.iter_mut().zip(gradient).zip(mean).zip(squares) {
                    let g = g * gradient_scale;
                    *m = beta1 * *m + rest1 * g;
                    *v = beta2 * *v + rest2 * (g * g);
                    *w = (*w * before - step * *m / (v.sqrt() + epsilon)) * after;
                }
            });
    }
}
