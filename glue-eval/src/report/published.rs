//! Published figures, to be compared with one's own.

use std::path::Path;

use super::summary::Summary;
use super::table::{Cell, Row, columns, titles};
use crate::error::GlueError;

/// Raffel et al. 2020, Table 14, T5-Small, in the order of [`columns`] without the average: on the test sets, from GLUE's
/// server, after fine-tuning on the mixture of all tasks.
const T5_SMALL: [f64; 12] = [41.0, 91.8, 89.7, 86.6, 85.6, 85.0, 88.0, 70.0, 82.4, 82.3, 90.3, 69.9];

/// The paper's Table 3: the average after so many steps of the large model, and its standard deviation if it is given.
const TABLE_3: [(&str, f64, Option<f64>); 11] = [
    ("T5-Small, 1 M steps", 80.28, None),
    ("T5-Medium, untrained", 64.07, None),
    ("T5-Medium, 250 K steps", 83.33, None),
    ("T5-Medium, 500 K steps", 84.35, None),
    ("T5-Medium, 1 M steps", 84.74, Some(0.13)),
    ("fusion-prop, 0 steps", 81.40, None),
    ("fusion-prop, 250 K steps", 84.10, None),
    ("fusion-prop, 500 K steps", 84.86, Some(0.13)),
    ("self-fusion, 0 steps", 81.01, None),
    ("self-fusion, 250 K steps", 83.71, None),
    ("self-fusion, 500 K steps", 84.94, Some(0.2)),
];

/// The results reported for T5 and in the paper, as rows of a table.
pub fn published_rows() -> Vec<Row> {
    let value = |mean, deviation| Cell::value(Summary { mean, deviation });
    let mut cells: Vec<Cell> = T5_SMALL.map(|percent| value(percent, None)).to_vec();
    cells.push(value(average(&T5_SMALL), None));
    let note = "Raffel et al. 2020, Table 14: the test sets; the average is taken here as everywhere else.";
    let mut rows = vec![Row::published("[T5] T5-Small", cells, vec![format!("[T5] {note}")])];
    for (label, mean, deviation) in TABLE_3 {
        let mut cells = vec![Cell::Missing; columns().len() - 1];
        cells.push(value(mean, deviation));
        let note = "[Deep Fusion] arXiv 2306.11903, Table 3, which has averages only.";
        rows.push(Row::published(format!("[Deep Fusion] {label}"), cells, vec![note.to_owned()]));
    }
    rows
}

/// The mean over the tasks of the mean of each task's metrics.
fn average(percents: &[f64]) -> f64 {
    let mut percents = percents.iter();
    let means = crate::Task::ALL.map(|task| {
        let metrics: Vec<f64> = percents.by_ref().take(task.metric_names().len()).copied().collect();
        metrics.iter().sum::<f64>() / metrics.len() as f64
    });
    means.iter().sum::<f64>() / means.len() as f64
}

/// Reads rows from a file such as [`ScoreTable::csv`](crate::ScoreTable::csv) writes: a column `model` and any of the
/// others.
///
/// # Errors
/// A file that cannot be read, an unknown column, or a value that is not a number.
pub fn read_rows(path: &Path) -> Result<Vec<Row>, GlueError> {
    let fail = |line: u64, problem: String| GlueError::Table { path: path.to_owned(), line, problem };
    let csv = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        fail(line, error.to_string())
    };
    let mut reader = csv::Reader::from_path(path).map_err(csv)?;
    let titles = titles();
    let header = reader.headers().map_err(csv)?.clone();
    let own = |title: &str| {
        let (title, deviation) = title.strip_suffix(" sd").map_or((title, false), |title| (title, true));
        titles.iter().position(|known| known == title).map(|column| (column, deviation))
    };
    let mut places = Vec::new();
    for title in &header {
        match own(title.trim()) {
            _ if title.trim() == "model" => places.push(None),
            Some(place) => places.push(Some(place)),
            None => {
                let problem =
                    format!("there is no column {title:?}; there are: model, {}", titles.join(", "));
                return Err(fail(1, problem));
            }
        }
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(csv)?;
        let line = record.position().map_or(0, csv::Position::line);
        let mut label = String::new();
        let mut values = vec![[None; 2]; titles.len()];
        for (text, place) in record.iter().map(str::trim).zip(&places) {
            match place {
                None => label = text.to_owned(),
                Some(_) if text.is_empty() => {}
                Some((column, deviation)) => {
                    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
                    let number = number
                        .ok_or_else(|| fail(line, format!("{}: {text:?} is no number", titles[*column])))?;
                    values[*column][usize::from(*deviation)] = Some(number);
                }
            }
        }
        let cell = |[mean, deviation]: [Option<f64>; 2]| {
            mean.map_or(Cell::Missing, |mean| Cell::value(Summary { mean, deviation }))
        };
        rows.push(Row::published(label, values.into_iter().map(cell).collect(), Vec::new()));
    }
    Ok(rows)
}
