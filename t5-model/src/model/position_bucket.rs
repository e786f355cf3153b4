//! T5's relative positions.

/// The bucket of `relative_position = key - query`. Half of the buckets hold one distance each; the others grow logarithmically up to `max_distance`. Bidirectional attention splits the buckets between the two directions.
pub fn position_bucket(
    relative_position: i64,
    bidirectional: bool,
    num_buckets: usize,
    max_distance: usize,
) -> usize {
    let (offset, buckets, distance) = match (bidirectional, relative_position) {
        (true, p) if p > 0 => (num_buckets / 2, num_buckets / 2, p.unsigned_abs()),
        (true, p) => (0, num_buckets / 2, p.unsigned_abs()),
        (false, p) => (0, num_buckets, p.min(0).unsigned_abs()),
    };
    let exact = buckets / 2;
    let distance = distance as usize;
    if distance < exact {
        return offset + distance;
    }
    // In f32, as transformers and Mesh TensorFlow compute it: at some distances f64 rounds to the next bucket.
    let ratio = (distance as f32 / exact as f32).ln() / (max_distance as f32 / exact as f32).ln();
    let grown = exact + (ratio * (buckets - exact) as f32) as usize;
    offset + grown.min(buckets - 1)
}
