//! Means and deviations over seeds.

/// Several measurements of the same thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The mean of the measurements.
    pub mean: f64,
    /// The sample's standard deviation (with n − 1); `None` for a single measurement.
    pub deviation: Option<f64>,
}

impl Summary {
    /// `None` without any value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        Some(Summary { mean, deviation })
    }

    /// Whether two means differ by no more than the larger of their standard deviations; `None` if neither has one.
    pub fn agrees_with(&self, other: &Summary) -> Option<bool> {
        let deviation = [self.deviation, other.deviation].into_iter().flatten().reduce(f64::max)?;
        Some((self.mean - other.mean).abs() <= deviation)
    }
}
