//! Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon>; `torch.optim.Muon`).

use fusion_core::HostTensor;
use rayon::prelude::*;

use super::{CHUNK, Moments, ParameterUpdate, zeros};
use crate::backend::kernels::matmul::{Into, Matrix, Threads, matmul};

/// A step of Muon with its constants precomputed; `g` is the gradient times `gradient_scale`:
///
/// `m ← momentum · m + rest · g`, `u = rest · g + momentum · m` (Nesterov), `w ← w · kept - step · o`, where `o` is
/// `u` with singular values of about 1: see [`MuonStep::COEFFICIENTS`].
#[derive(Clone, Copy, Debug)]
pub struct MuonStep {
    /// Factor for the gradient, from clipping.
    pub gradient_scale: f32,
    /// Decay of `m`.
    pub momentum: f32,
    /// `1 - momentum`, rounded once.
    pub rest: f32,
    /// The learning rate times `√max(1, rows / columns)`.
    pub step: f32,
    /// What weight decay leaves.
    pub kept: f32,
}

impl MuonStep {
    /// Newton and Schulz's iteration, in a variant that converges fast and not all the way: starting from
    /// `x = u / max(epsilon, |u|)`, transposed if it has more rows than columns,
    /// `a = x xᵀ`, `x ← c₀ x + (c₁ a + c₂ a²) x`, [`MuonStep::ITERATIONS`] times. Singular values end between 0.7
    /// and 1.2.
    pub const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
    /// Iterations.
    pub const ITERATIONS: usize = 5;
    /// The smallest norm that is divided by.
    pub const EPSILON: f32 = 1e-7;

    pub(super) fn new(update: &ParameterUpdate, momentum: f64, weight_decay: f64, shape: &[usize]) -> Self {
        let ratio = match shape {
            [rows, columns] => *rows as f64 / (*columns).max(1) as f64,
            _ => 1.0,
        };
        MuonStep {
            gradient_scale: update.gradient_scale,
            momentum: momentum as f32,
            rest: (1.0 - momentum) as f32,
            step: (update.learning_rate * ratio.max(1.0).sqrt()) as f32,
            kept: (1.0 - update.learning_rate * weight_decay) as f32,
        }
    }

    pub(super) fn apply(
        self,
        shape: &[usize],
        weights: &mut [f32],
        gradient: &[f32],
        moments: &mut Moments<HostTensor>,
    ) {
        let MuonStep { gradient_scale, momentum, rest, step, kept } = self;
        let mean = moments.mean(shape, zeros);
        let mut direction = vec![0.0; gradient.len()];
        direction
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK).zip(mean.data.par_chunks_mut(CHUNK)))
            .for_each(|(direction, (gradient, mean))| {
                for ((u, g), m) in direction.iter_mut().zip(gradient).zip(mean) {
                    let g = g * gradient_scale;
                    *m = momentum * *m + rest * g;
                    *u = rest * g + momentum * *m;
                }
            });
        let columns = shape.last().copied().unwrap_or(1).max(1);
        orthogonalise(&mut direction, columns);
        weights.par_chunks_mut(CHUNK).zip(direction.par_chunks(CHUNK)).for_each(|(weights, direction)| {
            weights.iter_mut().zip(direction).for_each(|(w, o)| *w = *w * kept - step * o);
        });
    }
}

/// Replaces a matrix with one of the same singular vectors and singular values of about 1.
fn orthogonalise(x: &mut [f32], columns: usize) {
    let rows = x.len() / columns;
    let norm = super::sum_of_squares(x).sqrt().max(f64::from(MuonStep::EPSILON));
    let scale = (1.0 / norm) as f32;
    x.par_chunks_mut(CHUNK).for_each(|x| x.iter_mut().for_each(|x| *x *= scale));
    let [c0, c1, c2] = MuonStep::COEFFICIENTS;
    let n = rows.min(columns);
    let (mut gram, mut polynomial) = (vec![0.0; n * n], vec![0.0; n * n]);
    let mut next = vec![0.0; x.len()];
    for _ in 0..MuonStep::ITERATIONS {
        // With more rows than columns, xᵀ x and products from the right give the transposed result.
        let matrix = Matrix::new(x, rows, columns);
        let (left, right) = match rows <= columns {
            true => (matrix, matrix.transposed()),
            false => (matrix.transposed(), matrix),
        };
        matmul(&mut gram, n, left, right, Into::Replace, Threads::All);
        let square = Matrix::new(&gram, n, n);
        matmul(&mut polynomial, n, square, square, Into::Replace, Threads::All);
        polynomial.iter_mut().zip(&gram).for_each(|(square, gram)| *square = c1 * gram + c2 * *square);
        let polynomial = Matrix::new(&polynomial, n, n);
        let (left, right) = if rows <= columns { (polynomial, matrix) } else { (matrix, polynomial) };
        matmul(&mut next, columns, left, right, Into::Replace, Threads::All);
        x.iter_mut().zip(&next).for_each(|(x, next)| *x = c0 * *x + next);
    }
}
