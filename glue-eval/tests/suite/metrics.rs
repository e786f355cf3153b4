//! Metrics compared with scikit-learn and SciPy, with values computed by hand, and with properties that hold
//! for any predictions.

use glue_eval::metrics::{accuracy, f1, matthews, pearson, spearman};
use proptest::prelude::*;
use serde::Deserialize;

fn close(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 1e-12, "{actual} is not {expected}");
}

/// A case of `goldens/metrics.json`, written by the script next to it.
#[derive(Deserialize)]
struct Golden {
    name: String,
    metric: String,
    targets: Vec<f64>,
    predictions: Vec<f64>,
    value: Option<f64>,
}

#[test]
fn values_of_scikit_learn_and_scipy() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/metrics.json")).unwrap();
    for Golden { name, metric, targets, predictions, value } in &goldens {
        let scores: Vec<_> = targets.iter().copied().zip(predictions.iter().copied()).collect();
        let classes: Vec<_> =
            scores.iter().map(|&(target, prediction)| (target as i32, prediction as i32)).collect();
        let actual = match metric.as_str() {
            "accuracy" => accuracy(&classes),
            "f1" => f1(&classes),
            "matthews" => matthews(&classes),
            "pearson" => pearson(&scores),
            "spearman" => spearman(&scores),
            other => panic!("{name}: unknown metric {other}"),
        };
        let agrees = value.map_or(actual.is_nan(), |value| (actual - value).abs() < 1e-12);
        assert!(agrees, "{metric} of {name}: {actual}, expected {value:?}");
    }
    let metrics: std::collections::BTreeSet<_> =
        goldens.iter().map(|golden| golden.metric.as_str()).collect();
    assert_eq!(metrics.len(), 5);
}

/// Repeats each (reference, prediction) pair as often as its count says.
fn confusion(counts: &[((i32, i32), usize)]) -> Vec<(i32, i32)> {
    counts.iter().flat_map(|&(pair, count)| std::iter::repeat_n(pair, count)).collect()
}

#[test]
fn binary_metrics_by_hand() {
    // 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
    let pairs = confusion(&[((1, 1), 3), ((0, 1), 1), ((1, 0), 2), ((0, 0), 4)]);
    close(accuracy(&pairs), 0.7);
    close(f1(&pairs), 6.0 / 9.0);
    close(matthews(&pairs), (3.0 * 4.0 - 1.0 * 2.0) / f64::sqrt(4.0 * 5.0 * 5.0 * 6.0));
}

#[test]
fn invalid_outputs() {
    // F1 treats -1 as the wrong class: one false positive and one false negative in addition to the single
    // hit.
    let pairs = [(1, 1), (0, -1), (1, -1), (0, 0)];
    close(f1(&pairs), 2.0 / 4.0);
    close(accuracy(&pairs), 0.5);
    // Matthews treats it as a third class: s = 4, c = 2, Σ p t = 1·2 + 1·2 = 4, Σ p² = 1 + 1 + 4, Σ t² = 8.
    close(matthews(&pairs), (2.0 * 4.0 - 4.0) / f64::sqrt((16.0 - 6.0) * (16.0 - 8.0)));

    let none_valid = [(1, -1), (0, -1), (1, -1)];
    assert_eq!((accuracy(&none_valid), f1(&none_valid), matthews(&none_valid)), (0.0, 0.0, 0.0));
}

#[test]
fn one_class_only() {
    assert_eq!(matthews(&[(0, 1), (1, 1)]), 0.0);
    assert_eq!(matthews(&[(1, 0), (1, 1)]), 0.0);
    assert_eq!(f1(&[(0, 0), (0, 0)]), 0.0);
    assert_eq!(f1(&[(1, 1)]), 1.0);
}

#[test]
fn correlations_by_hand() {
    let pairs = [(1.0, 2.0), (2.0, 1.0), (3.0, 4.0), (4.0, 3.0)];
    close(pearson(&pairs), 0.6);
    close(spearman(&pairs), 0.6);
    // A monotone curve has rank correlation 1. Ranks with ties: 1.5, 1.5, 3 against 1, 2, 3.
    close(spearman(&[(1.0, 1.0), (2.0, 8.0), (3.0, 1000.0)]), 1.0);
    close(spearman(&[(1.0, 0.1), (1.0, 0.2), (2.0, 0.3)]), 3.0_f64.sqrt() / 2.0);
    // Magnitudes whose squares are not representable.
    close(pearson(&[(1e200, 1e-200), (2e200, 2e-200), (3e200, 3e-200)]), 1.0);
}

#[test]
fn constant_scores_have_no_correlation() {
    for pairs in [&[(1.0, 2.0), (2.0, 2.0)][..], &[(3.0, 1.0), (3.0, 2.0)], &[(1.0, 1.0)], &[]] {
        assert!(pearson(pairs).is_nan() && spearman(pairs).is_nan(), "{pairs:?}");
    }
    assert!(accuracy(&[]).is_nan() && f1(&[]).is_nan() && matthews(&[]).is_nan());
}

proptest! {
    #[test]
    fn class_metrics_stay_in_range(pairs in prop::collection::vec((0..2_i32, -1..2_i32), 1..60)) {
        prop_assert!((0.0..=1.0).contains(&accuracy(&pairs)));
        prop_assert!((0.0..=1.0).contains(&f1(&pairs)));
        prop_assert!((-1.0 - 1e-12..=1.0 + 1e-12).contains(&matthews(&pairs)));
        // For two classes, Matthews is Pearson's correlation, where that is defined.
        if pairs.iter().all(|pair| pair.1 >= 0) {
            let numbers: Vec<_> = pairs.iter().map(|&(x, y)| (f64::from(x), f64::from(y))).collect();
            let expected = Some(pearson(&numbers)).filter(|value| value.is_finite()).unwrap_or(0.0);
            prop_assert!((matthews(&pairs) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn perfect_predictions_score_one(references in prop::collection::vec(0..3_i32, 2..40)) {
        let pairs: Vec<_> = references.iter().map(|&class| (class, class)).collect();
        prop_assert_eq!(accuracy(&pairs), 1.0);
        let varied = references.iter().any(|class| *class != references[0]);
        prop_assert!((matthews(&pairs) - f64::from(u8::from(varied))).abs() < 1e-12);
    }

    #[test]
    fn correlations_ignore_scale_and_order(
        pairs in prop::collection::vec((-5.0..5.0_f64, -5.0..5.0_f64), 3..40),
        scale in 0.01..100.0_f64,
        offset in -10.0..10.0_f64,
    ) {
        let moved: Vec<_> = pairs.iter().rev().map(|&(x, y)| (x, y * scale + offset)).collect();
        for correlation in [pearson, spearman] {
            let value = correlation(&pairs);
            prop_assert!((-1.0..=1.0).contains(&value));
            prop_assert!((value - correlation(&moved)).abs() < 1e-6);
            let swapped: Vec<_> = pairs.iter().map(|&(x, y)| (y, x)).collect();
            prop_assert!((value - correlation(&swapped)).abs() < 1e-9);
        }
    }
}
