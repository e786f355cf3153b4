//! Optimisers on burn's devices: no part of a step passes through the host.

use burn::tensor::Tensor;
use t5_model::optimizer::{AdafactorStep, AdamwStep, MuonStep};

/// Returns the new weights and updates the moments.
pub fn adamw(
    step: AdamwStep,
    weights: Tensor<2>,
    gradient: Tensor<2>,
    mean: &mut Tensor<2>,
    squares: &mut Tensor<2>,
) -> Tensor<2> {
    let gradient = gradient * step.gradient_scale;
    *mean = mean.clone() * step.beta1 + gradient.clone() * step.rest1;
    *squares = squares.clone() * step.beta2 + gradient.square() * step.rest2;
    let direction = mean.clone() / (squares.clone().sqrt() + step.epsilon) * step.step as f32;
    let direction = if step.relative { direction * scale(weights.clone()) } else { direction };
    (weights * step.before - direction) * step.after
}

/// Returns the new weights and updates the average.
pub fn muon(step: MuonStep, weights: Tensor<2>, gradient: Tensor<2>, mean: &mut Tensor<2>) -> Tensor<2> {
    let gradient = gradient * step.gradient_scale;
    *mean = mean.clone() * step.momentum + gradient.clone() * step.rest;
    let direction = orthogonalised(gradient * step.rest + mean.clone() * step.momentum);
    weights * step.kept - direction * step.step
}

/// A matrix with the same singular vectors and singular values of about 1.
fn orthogonalised(x: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = x.dims();
    if rows > columns {
        return orthogonalised(x.transpose()).transpose();
    }
    let norm = x.clone().square().sum().sqrt().clamp_min(MuonStep::EPSILON);
    let mut x = x / norm.reshape([1, 1]);
    let [c0, c1, c2] = MuonStep::COEFFICIENTS;
    for _ in 0..MuonStep::ITERATIONS {
        let gram = x.clone().matmul(x.clone().transpose());
        let polynomial = gram.clone() * c1 + gram.clone().matmul(gram) * c2;
        x = x.clone() * c0 + polynomial.matmul(x);
    }
    x
}

/// Returns the new weights and updates the average of squares.
pub fn adafactor(
    step: AdafactorStep,
    weights: Tensor<2>,
    gradient: Tensor<2>,
    squares: &mut Tensor<2>,
) -> Tensor<2> {
    let gradient = gradient * step.gradient_scale;
    let found = gradient.clone().square() + AdafactorStep::EPSILON;
    *squares = squares.clone() * step.decay + found * (1.0 - step.decay);
    descend(step, weights, gradient / squares.clone().sqrt())
}

/// The same with the average's factors, each stored as one row.
pub fn factored_adafactor(
    step: AdafactorStep,
    weights: Tensor<2>,
    gradient: Tensor<2>,
    rows: &mut Tensor<2>,
    columns: &mut Tensor<2>,
) -> Tensor<2> {
    let gradient = gradient * step.gradient_scale;
    let found = gradient.clone().square();
    let renew = |average: &Tensor<2>, found: Tensor<2>| {
        average.clone() * step.decay + (found + AdafactorStep::EPSILON) * (1.0 - step.decay)
    };
    let height = gradient.dims()[0];
    *rows = renew(rows, found.clone().mean_dim(1).reshape([1, height]));
    *columns = renew(columns, found.mean_dim(0)); // [1, columns]
    let by_row = (rows.clone() / rows.clone().mean_dim(1)).sqrt().recip().reshape([height, 1]);
    let by_column = columns.clone().sqrt().recip();
    descend(step, weights, gradient * by_row * by_column)
}

/// Takes a step of Adafactor in a direction.
fn descend(step: AdafactorStep, weights: Tensor<2>, direction: Tensor<2>) -> Tensor<2> {
    let clip = (rms(direction.clone()) / step.clip_threshold as f32).clamp_min(1.0);
    let rate = scale(weights.clone()) / clip * step.learning_rate as f32;
    weights - direction * rate
}

/// `max(1e-3, RMS)`, `[1, 1]`.
fn scale(weights: Tensor<2>) -> Tensor<2> {
    rms(weights).clamp_min(1e-3)
}

fn rms(x: Tensor<2>) -> Tensor<2> {
    x.square().mean().sqrt().unsqueeze()
}
