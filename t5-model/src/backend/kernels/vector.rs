//! Loops over short slices, written so that they vectorise.

const LANES: usize = 16;

/// `e^x` to about one unit in the last place, without branches (Cephes' polynomial).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5 · 2^23 rounds to the nearest integer n, whose bits are then the lowest ones.
    let rounded = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = rounded - 12_582_912.0;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // 2^n. A conversion of n would check for what does not fit, which keeps loops from becoming vectors.
    p * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

#[inline(always)]
fn fold(x: &[f32], initial: f32, combine: impl Fn(f32, f32) -> f32 + Copy) -> f32 {
    let mut lanes = [initial; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(initial, |a, b| combine(a, *b));
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = combine(*lane, *value);
        }
    }
    lanes.iter().fold(rest, |a, b| combine(a, *b))
}

#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    fold(x, 0.0, |a, b| a + b)
}

#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    fold(x, f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
}

#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| a * b).sum();
    for (x, y) in xs.zip(ys) {
        for ((lane, a), b) in lanes.iter_mut().zip(x).zip(y) {
            *lane += a * b;
        }
    }
    rest + lanes.iter().sum::<f32>()
}

#[inline(always)]
pub fn add_to(total: &mut [f32], x: &[f32]) {
    total.iter_mut().zip(x).for_each(|(total, x)| *total += x);
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_accurate() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(super::exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}) is off by {error:e}");
        }
    }
}
