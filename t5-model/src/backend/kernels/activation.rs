//! T5 1.1's gated GELU.

use rayon::prelude::*;

use super::vector::exp;
use super::{PIECE, buffer};

/// The tanh approximation of GELU (`gelu_new`) and its derivative.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    const SQRT_2_BY_PI: f32 = 0.797_884_6;
    const CUBIC: f32 = 0.044_715;
    let u = SQRT_2_BY_PI * (x + CUBIC * x * x * x);
    let tanh = 1.0 - 2.0 / (exp(2.0 * u) + 1.0);
    let value = 0.5 * x * (1.0 + tanh);
    let slope =
        0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * SQRT_2_BY_PI * (1.0 + 3.0 * CUBIC * x * x);
    (value, slope)
}

/// `gelu(gate) · value`.
pub fn gated_gelu(gate: &[f32], value: &[f32]) -> Vec<f32> {
    super::elementwise::zip(gate, value, |gate, value| gelu(gate).0 * value)
}

/// The gradients of gate and value.
pub fn gated_gelu_gradient(gate: &[f32], value: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut dgate, mut dvalue) = (buffer(gate.len()), buffer(gate.len()));
    let inputs = gate.par_chunks(PIECE).zip(value.par_chunks(PIECE)).zip(dy.par_chunks(PIECE));
    dgate.par_chunks_mut(PIECE).zip(dvalue.par_chunks_mut(PIECE)).zip(inputs).for_each(
        |((dgate, dvalue), ((gate, value), dy))| {
            let outputs = dgate.iter_mut().zip(dvalue);
            for ((dgate, dvalue), ((gate, value), dy)) in outputs.zip(gate.iter().zip(value).zip(dy)) {
                let (gelu, slope) = gelu(*gate);
                *dgate = dy * value * slope;
                *dvalue = dy * gelu;
            }
        },
    );
    (dgate, dvalue)
}
