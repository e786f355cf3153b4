//! T5's RMSNorm, by groups of features.

use rayon::prelude::*;

use super::vector::{add_to, dot};
use super::{buffer, rows_per_piece};

/// `gain · x / rms(x)`, with a separate RMS for each group of a row.
pub fn rms_norm(x: &[f32], gain: &[f32], groups: &[usize], epsilon: f32) -> Vec<f32> {
    let features = gain.len();
    let piece = rows_per_piece(features) * features;
    let mut y = buffer(x.len());
    y.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(y, x)| {
        for (y, x) in y.chunks_mut(features).zip(x.chunks(features)) {
            let mut at = 0;
            for &group in groups {
                let range = at..at + group;
                let x = &x[range.clone()];
                let scale = inverse_rms(x, epsilon);
                for ((y, x), gain) in y[range.clone()].iter_mut().zip(x).zip(&gain[range]) {
                    *y = x * scale * gain;
                }
                at += group;
            }
        }
    });
    y
}

/// The gradients of input and gain.
pub fn rms_norm_gradient(
    x: &[f32],
    gain: &[f32],
    groups: &[usize],
    epsilon: f32,
    dy: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let features = gain.len();
    let piece = rows_per_piece(features) * features;
    let mut dx = buffer(x.len());
    let partial_gains: Vec<Vec<f32>> = dx
        .par_chunks_mut(piece)
        .zip(x.par_chunks(piece).zip(dy.par_chunks(piece)))
        .map(|(dx, (x, dy))| {
            let mut dgain = vec![0f32; features];
            let rows = dx.chunks_mut(features).zip(x.chunks(features).zip(dy.chunks(features)));
            for (dx, (x, dy)) in rows {
                let mut at = 0;
                for &group in groups {
                    let range = at..at + group;
                    group_gradient(
                        (&mut dx[range.clone()], &mut dgain[range.clone()]),
                        (&x[range.clone()], &gain[range.clone()], &dy[range]),
                        epsilon,
                    );
                    at += group;
                }
            }
            dgain
        })
        .collect();
    let mut dgain = vec![0f32; features];
    partial_gains.iter().for_each(|partial| add_to(&mut dgain, partial));
    (dx, dgain)
}

fn group_gradient(
    (dx, dgain): (&mut [f32], &mut [f32]),
    (x, gain, dy): (&[f32], &[f32], &[f32]),
    epsilon: f32,
) {
    let scale = inverse_rms(x, epsilon);
    for ((dx, dy), gain) in dx.iter_mut().zip(dy).zip(gain) {
        *dx = dy * gain;
    }
    let along = dot(dx, x) * scale * scale * scale / x.len() as f32;
    for (((dx, x), dy), dgain) in dx.iter_mut().zip(x).zip(dy).zip(dgain) {
        *dx = *dx * scale - x * along;
        *dgain += dy * x * scale;
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}
