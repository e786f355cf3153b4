//! Element-wise operations.

use crate::backend::DropoutDraw;
use rayon::prelude::*;

use super::{PIECE, buffer};

/// Applies `f` to each element.
pub fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut y = buffer(x.len());
    y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(y, x)| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x));
    });
    y
}

/// Applies `f` to each pair of elements.
pub fn zip(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = buffer(x.len());
    out.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).zip(y.par_chunks(PIECE)).for_each(|((out, x), y)| {
        out.iter_mut().zip(x).zip(y).for_each(|((out, x), y)| *out = f(*x, *y));
    });
    out
}

/// Adds `x` to `total`, element by element.
pub fn add_to(total: &mut [f32], x: &[f32]) {
    let pieces = total.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE));
    pieces.for_each(|(total, x)| super::vector::add_to(total, x));
}

/// Multiplies by the dropout factors; this is also its own gradient.
pub fn dropout(x: &[f32], draw: &DropoutDraw) -> Vec<f32> {
    let mut y = buffer(x.len());
    y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).enumerate().for_each(|(piece, (y, x))| {
        draw.factors(piece * PIECE, y);
        y.iter_mut().zip(x).for_each(|(y, x)| *y *= x);
    });
    y
}
