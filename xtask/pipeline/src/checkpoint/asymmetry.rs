//! How far apart the two halves of a model's weights are: 0 in a self fusion whose symmetry is unbroken, 1 in
//! unrelated weights.

use std::fmt;

use serde::Serialize;

/// Over all matrices that have halves to compare.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Asymmetry {
    /// Of the most symmetric matrix.
    pub smallest: f64,
    /// Of the one in the middle.
    pub median: f64,
    /// Of the least symmetric matrix.
    pub largest: f64,
}

impl Asymmetry {
    /// Over these matrices; `None` without any.
    pub fn of(mut matrices: Vec<f64>) -> Option<Self> {
        matrices.sort_by(f64::total_cmp);
        let at = |index: usize| matrices.get(index).copied();
        Some(Asymmetry {
            smallest: at(0)?,
            median: at(matrices.len() / 2)?,
            largest: at(matrices.len().checked_sub(1)?)?,
        })
    }
}

/// Below this, the halves hardly differ by more than the noise meant to tell them apart.
const NEARLY: f64 = 0.02;

impl fmt::Display for Asymmetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asymmetry { smallest, median, largest } = self;
        write!(f, "{smallest:.3} to {largest:.3}, median {median:.3}")?;
        match *largest {
            0.0 => f.write_str(": locked"),
            largest if largest < NEARLY => f.write_str(": the halves are nearly equal"),
            _ => Ok(()),
        }
    }
}

/// The root mean square of the difference between the halves of a matrix, relative to that between unrelated
/// halves of the same size: 0 if they are equal, about 1 if they have nothing in common. The halves are the
/// two halves of the rows, the same with the halves of the columns exchanged (what self fusion leaves in a
/// block-diagonal matrix), or the two halves of the columns (an embedding or a head), whichever pair is
/// closest. `None` for odd sizes and for a constant matrix, which says nothing.
pub fn of_matrix(data: &[f32], columns: usize) -> Option<f64> {
    let rows = data.len() / columns.max(1);
    let total: f64 = data.iter().map(|value| f64::from(*value).powi(2)).sum();
    if !total.is_finite() || data.iter().all(|value| *value == data[0]) {
        return None;
    }
    let difference = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
    };
    let halves = |row| <[f32]>::split_at(row, columns / 2);
    let even_columns = columns.is_multiple_of(2);
    let mut candidates = Vec::new();
    if rows > 1 && rows.is_multiple_of(2) {
        let (upper, lower) = data.split_at(data.len() / 2);
        candidates.push(difference(upper, lower));
        let exchanged = |(upper, lower)| {
            let ((left, right), (lower_left, lower_right)) = (halves(upper), halves(lower));
            difference(left, lower_right) + difference(right, lower_left)
        };
        let pairs = || upper.chunks(columns).zip(lower.chunks(columns));
        candidates.extend(even_columns.then(|| pairs().map(exchanged).sum::<f64>()));
    }
    let sides = |row| {
        let (left, right) = halves(row);
        difference(left, right)
    };
    candidates.extend(even_columns.then(|| data.chunks(columns).map(sides).sum::<f64>()));
    let closest = candidates.into_iter().min_by(f64::total_cmp)?;
    Some((closest / total).sqrt())
}

#[cfg(test)]
mod tests {
    use fusion_core::random::Philox;

    use super::*;

    #[test]
    fn unrelated_halves_and_noise() {
        let mut matrix = vec![0.0; 64 * 64];
        Philox::new(1, "test").fill_normal(0, 1.0, &mut matrix);
        let unrelated = of_matrix(&matrix, 64).expect("halves");
        assert!((unrelated - 1.0).abs() < 0.1, "{unrelated}");
        // A self fusion with noise of one hundredth in the cross-connections.
        let small = matrix.clone();
        for (index, value) in matrix.iter_mut().enumerate() {
            let (row, column) = (index / 64, index % 64);
            *value =
                if (row < 32) == (column < 32) { small[row % 32 * 64 + column % 32] } else { *value * 0.01 };
        }
        let noisy = of_matrix(&matrix, 64).expect("halves");
        assert!((0.005..0.02).contains(&noisy), "{noisy}");
        assert_eq!(of_matrix(&[1.0; 9], 3), None);
    }
}
