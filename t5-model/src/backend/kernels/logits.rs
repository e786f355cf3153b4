//! Functions of rows of logits.

use super::vector::{exp, max, sum};

/// The index of the largest logit; the first one if several are equal.
pub fn most_likely(logits: &[f32]) -> i32 {
    let largest = max(logits);
    logits.iter().position(|logit| *logit == largest).unwrap_or(0) as i32
}

/// The log of the sum of their exponentials.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    /// Small enough that an f32 sum of this many is exact to a few units in the last place.
    const PIECE: usize = 256;
    let largest = max(logits);
    let mut exponentials = [0.0; PIECE];
    let pieces = logits.chunks(PIECE).map(|piece| {
        let exponentials = &mut exponentials[..piece.len()];
        exponentials.iter_mut().zip(piece).for_each(|(e, logit)| *e = exp(logit - largest));
        f64::from(sum(exponentials))
    });
    f64::from(largest) + pieces.sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::{log_sum_exp, most_likely};

    #[test]
    fn as_in_f64() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 * 0.3 - 11.0).collect();
        let exact = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
        assert!((log_sum_exp(&logits) - exact).abs() < 1e-6);
        let far: Vec<f32> = logits.iter().map(|logit| logit + 1000.0).collect();
        assert!((log_sum_exp(&far) - exact - 1000.0).abs() < 1e-3);
    }

    #[test]
    fn the_first_of_the_largest() {
        assert_eq!(most_likely(&[-3.0, -1.0, -2.0, -1.0]), 1);
    }
}
