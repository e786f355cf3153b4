//! Adafactor, Algorithm 4 with parameter scaling, update clipping and increasing decay.

use fusion_core::HostTensor;
use rayon::prelude::*;

use super::{CHUNK, Moments, ParameterUpdate, parameter_scale, zeros};

/// A step of Adafactor with its constants precomputed; `g` is the gradient times `gradient_scale`, and
/// squares are those of `g` plus [`AdafactorStep::EPSILON`].
///
/// Averages of squares become `decay · average + (1 - decay) · squares`. The direction `u` is `g / √average`,
/// or `g / √(row · column / mean(rows))` if factored, and
/// `w ← w - learning_rate · max(1e-3, RMS(w)) / max(1, RMS(u) / clip_threshold) · u`.
#[derive(Clone, Copy, Debug)]
pub struct AdafactorStep {
    /// Factor for the gradient, from clipping.
    pub gradient_scale: f32,
    /// Decay of the averages of squares.
    pub decay: f32,
    /// Root mean square that `u` is scaled down to.
    pub clip_threshold: f64,
    /// The step, relative to the weights' size.
    pub learning_rate: f64,
    /// Whether squares are kept as their means over rows and over columns.
    pub factored: bool,
}

/// Whether the squares of a parameter's gradient are kept as factors.
pub(super) fn is_factored(shape: &[usize], min_dim_size_to_factor: usize) -> bool {
    match shape {
        [rows, columns] => *rows.min(columns) >= min_dim_size_to_factor.max(1),
        _ => false,
    }
}

impl AdafactorStep {
    /// Added to the squares.
    pub const EPSILON: f32 = 1e-30;

    pub(super) fn new(
        update: &ParameterUpdate,
        decay_rate: f64,
        clip_threshold: f64,
        factored: bool,
    ) -> Self {
        AdafactorStep {
            gradient_scale: update.gradient_scale,
            decay: (1.0 - (update.step.max(1) as f64).powf(-decay_rate)) as f32,
            clip_threshold,
            learning_rate: update.learning_rate,
            factored,
        }
    }

    pub(super) fn apply(
        self,
        shape: &[usize],
        weights: &mut [f32],
        gradient: &[f32],
        moments: &mut Moments<HostTensor>,
    ) {
        let AdafactorStep { gradient_scale: scale, decay, .. } = self;
        let direction = match shape {
            [rows, columns] if self.factored => {
                let (row, column) = moments.rows_and_columns(shape, zeros);
                average_rows(gradient, *columns, scale, decay, &mut row.data);
                average_columns(gradient, *rows, *columns, scale, decay, &mut column.data);
                factored_direction(gradient, scale, &row.data, &column.data)
            }
            _ => {
                let squares = moments.squares(shape, zeros);
                unfactored_direction(gradient, scale, decay, &mut squares.data)
            }
        };
        let rms = (super::sum_of_squares(&direction) / direction.len().max(1) as f64).sqrt();
        let rate = self.learning_rate * parameter_scale(weights) / (rms / self.clip_threshold).max(1.0);
        let rate = rate as f32;
        let each = weights.par_chunks_mut(CHUNK).zip(direction.par_chunks(CHUNK));
        each.for_each(|(weights, direction)| {
            weights.iter_mut().zip(direction).for_each(|(w, u)| *w -= rate * u);
        });
    }
}

/// Updates the running mean of squared gradients of each row.
fn average_rows(gradient: &[f32], columns: usize, scale: f32, decay: f32, row: &mut [f32]) {
    row.par_iter_mut().zip(gradient.par_chunks(columns)).for_each(|(row, gradient)| {
        let mean = super::chunk_sum_of_squares(gradient) / columns as f64;
        *row = decay * *row + (1.0 - decay) * (mean as f32 * scale * scale + AdafactorStep::EPSILON);
    });
}

/// Updates the running mean of squared gradients of each column.
fn average_columns(
    gradient: &[f32],
    rows: usize,
    columns: usize,
    scale: f32,
    decay: f32,
    column: &mut [f32],
) {
    // Each thread takes a strip of columns, row by row.
    let strip = 256;
    column.par_chunks_mut(strip).enumerate().for_each(|(index, column)| {
        let mut sums = vec![0f32; column.len()];
        for row in gradient.chunks(columns) {
            let values = row.iter().skip(index * strip);
            sums.iter_mut().zip(values).for_each(|(sum, g)| *sum += g * g);
        }
        for (column, sum) in column.iter_mut().zip(sums) {
            *column = decay * *column
                + (1.0 - decay) * (sum / rows as f32 * scale * scale + AdafactorStep::EPSILON);
        }
    });
}

/// `g / sqrt(row · column / mean(row))`.
fn factored_direction(gradient: &[f32], scale: f32, row: &[f32], column: &[f32]) -> Vec<f32> {
    let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / row.len() as f64;
    let by_column: Vec<f32> = column.iter().map(|value| 1.0 / value.sqrt()).collect();
    let mut direction = vec![0f32; gradient.len()];
    direction
        .par_chunks_mut(column.len())
        .zip(gradient.par_chunks(column.len()))
        .zip(row.par_iter())
        .for_each(|((direction, gradient), row)| {
            let by_row = (mean / f64::from(*row)).sqrt() as f32 * scale;
            for ((u, g), by_column) in direction.iter_mut().zip(gradient).zip(&by_column) {
                *u = g * by_row * by_column;
            }
        });
    direction
}

/// `g / sqrt(v)`, `v` the updated running mean of squared gradients.
fn unfactored_direction(gradient: &[f32], scale: f32, decay: f32, second: &mut [f32]) -> Vec<f32> {
    let mut direction = vec![0f32; gradient.len()];
    direction
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(second.par_chunks_mut(CHUNK))
        .for_each(|((direction, gradient), second)| {
            for ((u, g), v) in direction.iter_mut().zip(gradient).zip(second) {
                let g = g * scale;
                *v = decay * *v + (1.0 - decay) * (g * g + AdafactorStep::EPSILON);
                *u = g / v.sqrt();
            }
        });
    direction
}
