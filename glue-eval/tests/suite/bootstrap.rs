//! Confidence intervals compared with SciPy's percentile bootstrap.

use glue_eval::data::Label;
use glue_eval::prompt::possible_answers;
use glue_eval::score::{Prediction, TaskScore};
use glue_eval::{Task, task::Answer};
use serde::Deserialize;

/// A case of `goldens/bootstrap.json`, written by the script next to it.
#[derive(Deserialize)]
struct Golden {
    task: Task,
    targets: Vec<f64>,
    predictions: Vec<f64>,
    intervals: Vec<[f64; 2]>,
}

fn prediction(task: Task, target: f64, prediction: f64) -> Prediction {
    let (label, output) = match task.spec().answer {
        Answer::Class { .. } if prediction < 0.0 => (Label::Class(target as usize), "neither".to_owned()),
        Answer::Class { .. } => {
            (Label::Class(target as usize), possible_answers(task)[prediction as usize].clone())
        }
        Answer::Score { .. } => (Label::Score(target as f32), format!("{prediction:.1}")),
    };
    Prediction { label: Some(label), output, plain: true }
}

#[test]
fn intervals_of_scipy() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/bootstrap.json")).unwrap();
    for Golden { task, targets, predictions, intervals } in &goldens {
        let pairs = targets.iter().zip(predictions);
        let sets = [pairs.map(|(&target, &answer)| prediction(*task, target, answer)).collect::<Vec<_>>()];
        let mut score = TaskScore::new(*task, &sets);
        score.add_intervals(&sets, 5_000);
        assert_eq!(score.metrics.len(), intervals.len());
        for (metric, expected) in score.metrics.iter().zip(intervals) {
            let found = metric.interval.unwrap();
            for (found, expected) in found.iter().zip(expected) {
                // Two sets of 5,000 resamples differ by a few tenths of a percent.
                assert!((found - 100.0 * expected).abs() < 1.0, "{task} {metric:?}, expected {expected}");
            }
        }
    }
}

#[test]
fn what_cannot_vary_has_a_narrow_interval_and_what_is_undefined_has_none() {
    let all = |output: &str| -> [Vec<Prediction>; 1] {
        [vec![prediction(Task::Stsb, 1.0, 1.0), prediction(Task::Stsb, 3.0, 3.0)]
            .into_iter()
            .map(|prediction| Prediction { output: output.to_owned(), ..prediction })
            .collect()]
    };
    let constant = all("2.0");
    let mut score = TaskScore::new(Task::Stsb, &constant);
    score.add_intervals(&constant, 100);
    assert!(score.metrics.iter().all(|metric| metric.interval.is_none() && metric.percent.is_none()));

    let right = [vec![prediction(Task::Cola, 1.0, 1.0), prediction(Task::Cola, 0.0, 0.0)]];
    let mut score = TaskScore::new(Task::Cola, &right);
    score.add_intervals(&right, 0);
    assert_eq!(score.metrics[0].interval, None, "no resamples, no interval");
}
