//! RMSNorm in libtorch's operations, f32.

use tch::{Kind, Tensor};

/// The result, and for each group what its features were multiplied by.
pub fn rms_norm(x: &Tensor, gain: &Tensor, groups: &[i64], epsilon: f32) -> (Tensor, Vec<Tensor>) {
    let inverse_rms = |x: &Tensor| {
        let features = x.size()[2] as f64;
        let squares = x.norm_scalaropt_dim(2, [-1].as_slice(), true).square(); // [batch, length, 1]
        (squares / features + f64::from(epsilon)).rsqrt()
    };
    let scales: Vec<Tensor> = split(x, groups).iter().map(inverse_rms).collect();
    let parts = split(x, groups).into_iter().zip(&scales).map(|(x, scale)| x * scale);
    (join(parts) * gain, scales)
}

/// The gradients of `x` and of the gain.
pub fn rms_norm_gradients(
    dy: &Tensor,
    x: &Tensor,
    gain: &Tensor,
    groups: &[i64],
    scales: &[Tensor],
) -> [Tensor; 2] {
    let scaled = dy * gain;
    let (mut dx, mut normed) = (vec![], vec![]);
    for ((x, dy), scale) in split(x, groups).into_iter().zip(split(&scaled, groups)).zip(scales) {
        let x = x * scale;
        let projection = (&x * &dy).mean_dim(-1, true, Kind::Float); // [batch, length, 1]
        dx.push((dy - &x * projection) * scale);
        normed.push(x);
    }
    let dgain = (dy * join(normed.into_iter())).sum_dim_intlist([0, 1].as_slice(), false, Kind::Float);
    [join(dx.into_iter()), dgain]
}

/// The groups of features.
fn split(x: &Tensor, groups: &[i64]) -> Vec<Tensor> {
    match groups {
        [_] => vec![x.shallow_clone()],
        groups => x.split_with_sizes(groups, -1),
    }
}

fn join(mut parts: impl ExactSizeIterator<Item = Tensor>) -> Tensor {
    match (parts.len(), parts.next()) {
        (1, Some(part)) => part,
        (_, first) => Tensor::cat(&first.into_iter().chain(parts).collect::<Vec<_>>(), -1),
    }
}
