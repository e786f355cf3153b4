//! Lookups in tables: token embeddings and relative position biases.

use rayon::prelude::*;

use super::vector::add_to;
use super::{buffer, rows_per_piece};

/// The rows of `table` `[rows, features]` at `ids`, which are less than `rows`.
pub fn embedding(table: &[f32], features: usize, ids: &[i32]) -> Vec<f32> {
    let mut y = buffer(ids.len() * features);
    let rows = rows_per_piece(features);
    y.par_chunks_mut(rows * features).zip(ids.par_chunks(rows)).for_each(|(y, ids)| {
        for (y, &id) in y.chunks_mut(features).zip(ids) {
            let start = id as usize * features;
            y.copy_from_slice(&table[start..start + features]);
        }
    });
    y
}

/// The gradient of a table with `rows` rows.
pub fn embedding_gradient(dy: &[f32], rows: usize, features: usize, ids: &[i32]) -> Vec<f32> {
    let mut dtable = vec![0f32; rows * features];
    // Each thread owns some of the table's rows and searches for their ids in order.
    let owned = rows.div_ceil(64);
    dtable.par_chunks_mut(owned * features).enumerate().for_each(|(index, dtable)| {
        let first = index * owned;
        for (&id, dy) in ids.iter().zip(dy.chunks(features)) {
            let row = (id as usize).wrapping_sub(first);
            if row < owned {
                add_to(&mut dtable[row * features..(row + 1) * features], dy);
            }
        }
    });
    dtable
}

/// `[heads, pairs]` from `table` `[buckets, heads]`: each head's bias for each pair of positions.
pub fn position_bias(table: &[f32], heads: usize, buckets: &[u32]) -> Vec<f32> {
    let mut bias = buffer(heads * buckets.len());
    bias.par_chunks_mut(buckets.len()).enumerate().for_each(|(head, bias)| {
        for (bias, &bucket) in bias.iter_mut().zip(buckets) {
            *bias = table[bucket as usize * heads + head];
        }
    });
    bias
}

/// The gradient of a table with `rows` buckets.
pub fn position_bias_gradient(dbias: &[f32], rows: usize, buckets: &[u32]) -> Vec<f32> {
    let sums: Vec<Vec<f64>> = dbias
        .par_chunks(buckets.len())
        .map(|dbias| {
            let mut sums = vec![0f64; rows];
            for (dbias, &bucket) in dbias.iter().zip(buckets) {
                sums[bucket as usize] += f64::from(*dbias);
            }
            sums
        })
        .collect();
    (0..rows).flat_map(|row| sums.iter().map(move |head| head[row] as f32)).collect()
}
