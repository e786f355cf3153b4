//! From outputs to a task's score, the GLUE average, and tables.

use glue_eval::Task;
use glue_eval::data::Label;
use glue_eval::score::{GlueScore, MetricScore, Prediction, TaskScore};
use glue_eval::{Row, ScoreTable};

fn prediction(label: Label, output: &str) -> Prediction {
    Prediction { label: Some(label), output: output.to_owned(), plain: true }
}

fn classes(pairs: &[(usize, &str)]) -> Vec<Prediction> {
    pairs.iter().map(|&(class, output)| prediction(Label::Class(class), output)).collect()
}

fn given(task: Task, percents: &[f64]) -> TaskScore {
    let metrics = task.metric_names().into_iter().zip(percents);
    let metrics = metrics
        .map(|(name, &percent)| MetricScore { name, percent: Some(percent), interval: None })
        .collect();
    TaskScore { task, metrics, examples: 100, invalid: 0, confusion: Vec::new() }
}

fn all_tasks() -> Vec<TaskScore> {
    vec![
        given(Task::Cola, &[53.84]),
        given(Task::Sst2, &[92.09]),
        given(Task::Mrpc, &[92.55, 89.71]),
        given(Task::Stsb, &[88.02, 87.94]),
        given(Task::Qqp, &[91.56, 88.67]),
        given(Task::Mnli, &[84.24, 84.57]),
        given(Task::Qnli, &[90.48]),
        given(Task::Rte, &[76.28]),
    ]
}

#[test]
fn outputs_become_percentages_in_the_tasks_order() {
    let score = TaskScore::new(
        Task::Mrpc,
        &[classes(&[(1, "equivalent"), (0, "equivalent"), (1, "not_equivalent"), (0, "equivalents")])],
    );
    let metrics: Vec<_> = score.metrics.iter().map(|metric| (metric.name.as_str(), metric.percent)).collect();
    // The invalid output counts as a false positive: 2 · 1 / (2 · 1 + 2 + 1).
    assert_eq!(metrics, [("F1", Some(40.0)), ("accuracy", Some(25.0))]);
    assert_eq!((score.examples, score.invalid, score.mean()), (4, 1, 32.5));

    let mnli = TaskScore::new(
        Task::Mnli,
        &[classes(&[(0, "entailment"), (1, "neutral")]), classes(&[(2, "neutral"), (2, "contradiction")])],
    );
    let metrics: Vec<_> = mnli.metrics.iter().map(|metric| (metric.name.as_str(), metric.percent)).collect();
    assert_eq!(metrics, [("matched accuracy", Some(100.0)), ("mismatched accuracy", Some(50.0))]);
    assert_eq!(mnli.mean(), 75.0);
}

#[test]
fn scores_are_compared_with_the_rounded_references() {
    // The references round to 1.0, 2.0 and 3.0, which match the answers exactly; unrounded, they are slightly
    // off.
    let predictions = [(1.05, "1.0"), (2.05, "2.0"), (2.95, "3.0")];
    let predictions = predictions.map(|(score, output)| prediction(Label::Score(score), output));
    let score = TaskScore::new(Task::Stsb, &[predictions.to_vec()]);
    assert!((score.mean() - 100.0).abs() < 1e-9);
}

#[test]
fn outputs_that_are_not_plain_are_invalid() {
    let cut = Prediction { label: Some(Label::Class(1)), output: "acceptable".to_owned(), plain: false };
    let score = TaskScore::new(Task::Cola, &[vec![cut, prediction(Label::Class(1), "acceptable")]]);
    assert_eq!((score.invalid, score.examples), (1, 2));
}

#[test]
fn undefined_correlations_are_said_and_count_as_zero() {
    let babble = [4.0, 2.0, 1.0].map(|score| prediction(Label::Score(score), "the the"));
    let score = TaskScore::new(Task::Stsb, &[babble.to_vec()]);
    assert_eq!(score.metrics.iter().map(|metric| metric.percent).collect::<Vec<_>>(), [None, None]);
    assert_eq!((score.mean(), score.invalid), (0.0, 3));
    let table =
        ScoreTable { rows: vec![Row::measured("random", &[GlueScore::new([score])])], notes: Vec::new() };
    insta::assert_snapshot!("undefined", table.text());
}

/// By hand: the mean over the tasks of the mean of each task's metrics.
#[test]
fn the_average_takes_each_tasks_metrics_first() {
    let score = GlueScore::new(all_tasks());
    let expected = (53.84 + 92.09 + 91.13 + 87.98 + 90.115 + 84.405 + 90.48 + 76.28) / 8.0;
    assert!((score.average().unwrap() - expected).abs() < 1e-9);
    assert!(score.missing().is_empty());
    assert_eq!(GlueScore::default().average(), None);
}

#[test]
fn tables_have_the_papers_columns() {
    let mut second = all_tasks();
    second.iter_mut().flat_map(|score| &mut score.metrics).for_each(|metric| {
        metric.percent = metric.percent.map(|percent| percent - 1.5);
    });
    second[0].invalid = 7;
    second.retain(|score| !matches!(score.task, Task::Sst2 | Task::Rte));
    let table = ScoreTable {
        rows: vec![
            Row::measured("best step of each task", &[GlueScore::new(all_tasks())]),
            Row::measured("last step", &[GlueScore::new(second.into_iter().rev())]),
        ],
        notes: vec!["QQP: subset, 19714 of 363846 training examples.".to_owned()],
    };
    insta::assert_snapshot!("table_text", table.text());
    insta::assert_snapshot!("table_markdown", table.markdown());
}

#[test]
fn json_carries_the_average_and_reads_back() {
    let score = GlueScore::new(all_tasks().into_iter().take(2));
    let json = serde_json::to_value(&score).unwrap();
    assert_eq!(json["missing"], serde_json::json!(["mrpc", "stsb", "qqp", "mnli", "qnli", "rte"]));
    assert!((json["average"].as_f64().unwrap() - 72.965).abs() < 1e-9);
    assert_eq!(serde_json::from_value::<GlueScore>(json).unwrap(), score);
}
