//! Confidence intervals by the percentile bootstrap (Efron 1979): how much a metric depends on which examples happen to
//! be in the development set.

use fusion_core::random::Philox;

use super::prediction::Pairs;
use crate::task::Answer;

/// The share of resamples outside of the interval, on each side.
const TAIL: f64 = 0.025;

/// The 95 % interval of each metric in percent; `None` if fewer than half of the resamples have a value, or if there are
/// no resamples. Draws depend on the set's name and size alone, so two models are compared on the same resamples.
pub(crate) fn intervals(
    answer: &Answer,
    pairs: &Pairs,
    set: &str,
    resamples: usize,
) -> Vec<Option<[f64; 2]>> {
    let draws = Philox::new(pairs.len() as u64, &format!("bootstrap {set}"));
    let mut values = vec![Vec::with_capacity(resamples); pairs.metrics(answer).len()];
    let mut positions = vec![0; pairs.len()];
    for resample in 0..resamples as u64 {
        draw(&draws, resample, &mut positions);
        let metrics = pairs.at(&positions).metrics(answer);
        for (values, (_, fraction)) in values.iter_mut().zip(metrics) {
            values.extend(Some(100.0 * fraction).filter(|percent| percent.is_finite()));
        }
    }
    values.into_iter().map(|values| interval(values, resamples)).collect()
}

/// Draws as many positions as there are, with replacement.
fn draw(draws: &Philox, resample: u64, positions: &mut [usize]) {
    let count = positions.len() as u64;
    let first = resample * count.div_ceil(4);
    for (block, positions) in (first..).zip(positions.chunks_mut(4)) {
        for (position, word) in positions.iter_mut().zip(draws.block(block)) {
            *position = ((u64::from(word) * count) >> 32) as usize;
        }
    }
}

fn interval(mut values: Vec<f64>, resamples: usize) -> Option<[f64; 2]> {
    if values.is_empty() || 2 * values.len() < resamples {
        return None;
    }
    values.sort_by(f64::total_cmp);
    Some([quantile(&values, TAIL), quantile(&values, 1.0 - TAIL)])
}

/// The quantile of sorted values, interpolated between neighbours (NumPy's default).
fn quantile(values: &[f64], share: f64) -> f64 {
    let position = share * (values.len() - 1) as f64;
    let (below, above) = (values[position.floor() as usize], values[position.ceil() as usize]);
    below + position.fract() * (above - below)
}
