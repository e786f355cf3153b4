//! Linear least squares with a ridge: small enough to need no linear algebra library, whose features would be
//! everybody's.

use fusion_core::HostTensor;
use rayon::prelude::*;

/// Tokens whose products are added up while they are in the cache.
const TILE: usize = 32;

/// Weights `[out, in]` that make outputs `[token, out]` of inputs `[token, in]`.
pub(super) struct LeastSquares {
    inputs: usize,
    /// `[in, in]`: the sum of `input · input`.
    gram: Vec<f64>,
    /// `[out, in]`: the sum of `output · input`.
    cross: Vec<f64>,
}

impl LeastSquares {
    pub fn new(inputs: usize, outputs: usize) -> Self {
        LeastSquares { inputs, gram: vec![0.0; inputs * inputs], cross: vec![0.0; outputs * inputs] }
    }

    pub fn add(&mut self, inputs: &[f64], outputs: &[f64]) {
        let (width, height) = (self.inputs, self.cross.len() / self.inputs);
        add_products(&mut self.gram, (inputs, width), (inputs, width));
        add_products(&mut self.cross, (outputs, height), (inputs, width));
    }

    /// Moves weights to the solution. `ridge` holds them to what they were, as a share of their inputs'
    /// squares. Without a finite solution they stay.
    pub fn refit(mut self, weight: &mut HostTensor, ridge: f64) {
        let width = self.inputs;
        let trace: f64 = self.gram.iter().step_by(width + 1).sum();
        let held: Vec<f64> = self.gram.iter().step_by(width + 1).map(|square| ridge * square).collect();
        let held: Vec<f64> = held.iter().map(|held| held + 1e-9 * trace / width as f64).collect();
        self.gram.iter_mut().step_by(width + 1).zip(&held).for_each(|(square, held)| *square += held);
        for (row, old) in self.cross.chunks_mut(width).zip(weight.data.chunks(width)) {
            row.iter_mut().zip(old).zip(&held).for_each(|((row, old), held)| *row += held * f64::from(*old));
        }
        if !factorise(&mut self.gram, width) {
            return;
        }
        self.cross.par_chunks_mut(width).for_each(|row| substitute(&self.gram, row));
        if self.cross.iter().all(|value| value.is_finite()) {
            weight.data = self.cross.iter().map(|value| *value as f32).collect();
        }
    }
}

/// Adds `leftᵀ · right` `[a, b]` of `left` `[token, a]` and `right` `[token, b]`, in the same order on any
/// number of threads.
fn add_products(sums: &mut [f64], (left, a): (&[f64], usize), (right, b): (&[f64], usize)) {
    for (left, right) in left.chunks(TILE * a).zip(right.chunks(TILE * b)) {
        sums.par_chunks_mut(b).enumerate().with_min_len(8).for_each(|(index, sums)| {
            for (left, right) in left.chunks(a).zip(right.chunks(b)) {
                let factor = left[index];
                sums.iter_mut().zip(right).for_each(|(sum, value)| *sum += factor * value);
            }
        });
    }
}

/// Cholesky's factor of a symmetric matrix, in its lower triangle. False if the matrix is not positive
/// definite.
fn factorise(matrix: &mut [f64], width: usize) -> bool {
    for row in 0..width {
        let (above, rest) = matrix.split_at_mut(row * width);
        let own = &mut rest[..width];
        for column in 0..row {
            let other = &above[column * width..][..width];
            let product: f64 = own[..column].iter().zip(other).map(|(a, b)| a * b).sum();
            own[column] = (own[column] - product) / other[column];
        }
        let square = own[row] - own[..row].iter().map(|value| value * value).sum::<f64>();
        if square.is_nan() || square <= 0.0 {
            return false;
        }
        own[row] = square.sqrt();
    }
    true
}

/// Solves for one right-hand side, in its place.
fn substitute(factor: &[f64], values: &mut [f64]) {
    let width = values.len();
    for row in 0..width {
        let own = &factor[row * width..][..width];
        let known: f64 = own[..row].iter().zip(&*values).map(|(a, b)| a * b).sum();
        values[row] = (values[row] - known) / own[row];
    }
    for row in (0..width).rev() {
        let own = &factor[row * width..][..width];
        values[row] /= own[row];
        let solved = values[row];
        values[..row].iter_mut().zip(own).for_each(|(value, factor)| *value -= factor * solved);
    }
}

#[cfg(test)]
mod tests {
    use fusion_core::HostTensor;
    use fusion_core::random::Philox;

    use super::LeastSquares;

    fn random(name: &str, len: u64) -> Vec<f64> {
        let draws = Philox::new(1, name);
        (0..len).map(|index| f64::from(draws.uniform(index)) - 0.5).collect()
    }

    /// Outputs of known weights give those weights, with and without a ridge towards them.
    #[test]
    fn known_weights_are_found() {
        let (inputs, outputs, tokens) = (7, 3, 100);
        let x = random("inputs", inputs * tokens);
        let weights = random("weights", inputs * outputs);
        let row = |x: &[f64]| -> Vec<f64> {
            weights.chunks(7).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
        };
        let y: Vec<f64> = x.chunks(7).flat_map(row).collect();
        let refit = |start: f32, ridge: f64| {
            let mut found = LeastSquares::new(7, 3);
            found.add(&x[..7 * 40], &y[..3 * 40]);
            found.add(&x[7 * 40..], &y[3 * 40..]);
            let mut weight = HostTensor { shape: vec![3, 7], data: vec![start; 21] };
            found.refit(&mut weight, ridge);
            let difference = |(w, expected): (&f32, &f64)| (f64::from(*w) - expected).abs();
            weight.data.iter().zip(&weights).map(difference).fold(0.0, f64::max)
        };
        assert!(refit(0.0, 0.0) < 1e-6);
        assert!((1e-3..0.1).contains(&refit(0.0, 0.01)));
        assert!(refit(1.0, 1e6) > 0.4);
    }

    #[test]
    fn inputs_that_say_nothing_change_nothing() {
        let mut found = LeastSquares::new(2, 1);
        found.add(&[0.0; 4], &[1.0; 2]);
        let mut weight = HostTensor { shape: vec![1, 2], data: vec![0.5; 2] };
        found.refit(&mut weight, 0.01);
        assert_eq!(weight.data, [0.5; 2]);
    }
}
