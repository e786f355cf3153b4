//! Tables of results, with the columns of the paper's Table 5.

use std::fmt::Write;

use super::summary::Summary;
use crate::score::GlueScore;
use crate::task::Task;

/// Scores of several models, one row each.
#[derive(Clone, Debug, Default)]
pub struct ScoreTable {
    /// One per model.
    pub rows: Vec<Row>,
    /// Sentences below the table, in addition to the rows' own.
    pub notes: Vec<String>,
}

/// A model's scores, in percent.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Names the model.
    pub label: String,
    /// In the order of the table's columns, the average last.
    pub cells: Vec<Cell>,
    notes: Vec<String>,
}

/// A score in a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// Not measured, or not published.
    Missing,
    /// A correlation with constant predictions.
    Undefined,
    /// A score in percent.
    Value {
        /// Over the seeds.
        summary: Summary,
        /// Whether it is an average over only some of the tasks.
        partial: bool,
        /// Whether it differs from the score it is compared with by no more than a standard deviation.
        agrees: bool,
    },
}

const MISSING: &str = "-";
const UNDEFINED: &str = "nan";

/// The task and the metric of every column; the average comes last.
pub fn columns() -> Vec<(String, String)> {
    let of_task = |task: Task| task.metric_names().into_iter().map(move |metric| (task.to_string(), metric));
    let average = ("Average".to_owned(), String::new());
    Task::ALL.into_iter().flat_map(of_task).chain([average]).collect()
}

impl Cell {
    /// A score over all tasks that is compared with none.
    pub(crate) fn value(summary: Summary) -> Self {
        Cell::Value { summary, partial: false, agrees: false }
    }

    pub(crate) fn of(values: &[f64]) -> Self {
        Summary::of(values).map_or(Cell::Missing, Cell::value)
    }

    /// The mean and the deviation, if there is a score.
    pub fn summary(&self) -> Option<&Summary> {
        match self {
            Cell::Value { summary, .. } => Some(summary),
            _ => None,
        }
    }

    /// As the table shows it.
    pub fn text(&self) -> String {
        match self {
            Cell::Missing => MISSING.to_owned(),
            Cell::Undefined => UNDEFINED.to_owned(),
            Cell::Value { summary: Summary { mean, deviation }, partial, agrees } => {
                let deviation = deviation.map_or(String::new(), |deviation| format!(" ± {deviation:.2}"));
                let (partial, agrees) = (if *partial { "*" } else { "" }, if *agrees { " ≈" } else { "" });
                format!("{mean:.2}{deviation}{partial}{agrees}")
            }
        }
    }
}

impl Row {
    /// The scores of a model that was fine-tuned with one or several seeds.
    pub fn measured(label: impl Into<String>, seeds: &[GlueScore]) -> Self {
        let label = label.into();
        let mut cells = Vec::new();
        for task in Task::ALL {
            for name in task.metric_names() {
                let metrics = || seeds.iter().filter_map(|score| score.task(task)?.metric(&name));
                let values: Vec<f64> = metrics().filter_map(|metric| metric.percent).collect();
                cells.push(match metrics().next() {
                    Some(_) if values.len() < metrics().count() => Cell::Undefined,
                    _ => Cell::of(&values),
                });
            }
        }
        let averages: Vec<f64> = seeds.iter().filter_map(GlueScore::average).collect();
        let mut average = Cell::of(&averages);
        if let Cell::Value { partial, .. } = &mut average {
            *partial = seeds.iter().any(|score| !score.missing().is_empty());
        }
        cells.push(average);
        let notes = notes(&label, seeds);
        Row { label, cells, notes }
    }

    /// Marks the cells that differ from another row's by no more than the larger standard deviation of the two.
    pub fn compare_with(&mut self, other: &Row) {
        for (cell, other) in self.cells.iter_mut().zip(&other.cells) {
            if let (Cell::Value { summary, agrees, .. }, Some(other)) = (cell, other.summary()) {
                *agrees = summary.agrees_with(other) == Some(true);
            }
        }
    }

    /// Whether any cell has a standard deviation.
    pub fn has_deviations(&self) -> bool {
        self.cells.iter().any(|cell| cell.summary().is_some_and(|summary| summary.deviation.is_some()))
    }

    /// Published figures, in the order of the table's columns.
    pub fn published(label: impl Into<String>, cells: Vec<Cell>, notes: Vec<String>) -> Self {
        Row { label: label.into(), cells, notes }
    }
}

impl ScoreTable {
    /// Aligned columns under a header of two lines, tasks and metrics. Columns without any value are left out.
    pub fn text(&self) -> String {
        let shown = self.shown();
        let mut lines = vec![vec![String::new()], vec![String::new()]];
        for (task, metric) in shown.iter().filter_map(|&column| columns().into_iter().nth(column)) {
            lines[0].push(task);
            lines[1].push(metric);
        }
        lines.extend(self.rows.iter().map(|row| row.texts(&shown)));
        let mut text = aligned(&lines);
        self.all_notes().for_each(|note| text += &format!("{note}\n"));
        text
    }

    /// A Markdown table of the same columns; the notes follow as paragraphs.
    pub fn markdown(&self) -> String {
        let (shown, titles) = (self.shown(), titles());
        let header: Vec<&str> = shown.iter().map(|&column| titles[column].as_str()).collect();
        let mut text = format!("| | {} |\n|---|{}\n", header.join(" | "), "---:|".repeat(header.len()));
        for row in &self.rows {
            let mut texts = row.texts(&shown);
            texts[0] = texts[0].replace('|', "\\|");
            let _ = writeln!(text, "| {} |", texts.join(" | "));
        }
        self.all_notes().for_each(|note| text += &format!("\n{}\n", note.replace('*', "\\*")));
        text
    }

    /// The columns that have any value, by their positions in [`columns`].
    pub fn shown(&self) -> Vec<usize> {
        let has_value =
            |column: &usize| self.rows.iter().any(|row| row.cells.get(*column) != Some(&Cell::Missing));
        (0..columns().len()).filter(has_value).collect()
    }

    /// Comma-separated values under a header line: the label, and the mean and the standard deviation for each column,
    /// empty if there is none. The notes are left out.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header = titles().into_iter().flat_map(|title| [title.clone(), format!("{title} sd")]);
        let mut lines = vec![std::iter::once("model".to_owned()).chain(header).collect::<Vec<_>>()];
        for row in &self.rows {
            let numbers = row.cells.iter().flat_map(|cell| {
                let mean = cell.summary().map(|summary| summary.mean);
                let deviation = cell.summary().and_then(|summary| summary.deviation);
                [mean, deviation].map(|number| number.map_or(String::new(), |number| number.to_string()))
            });
            lines.push(std::iter::once(row.label.clone()).chain(numbers).collect());
        }
        // Writing to memory does not fail, and all lines are equally long.
        lines.iter().for_each(|line| writer.write_record(line).unwrap_or_default());
        String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
    }

    /// The notes of the rows and of the table, each once.
    pub fn all_notes(&self) -> impl Iterator<Item = &String> {
        let mut seen = std::collections::HashSet::new();
        let notes = self.rows.iter().flat_map(|row| &row.notes).chain(&self.notes);
        notes.filter(move |note| seen.insert(note.as_str()))
    }
}

impl Row {
    fn texts(&self, columns: &[usize]) -> Vec<String> {
        let cells = columns.iter().filter_map(|&column| self.cells.get(column));
        std::iter::once(self.label.clone()).chain(cells.map(Cell::text)).collect()
    }
}

/// `CoLA Matthews` and so on: the columns' names in one line.
pub(crate) fn titles() -> Vec<String> {
    columns().iter().map(|(task, metric)| format!("{task} {metric}").trim_end().to_owned()).collect()
}

fn notes(label: &str, seeds: &[GlueScore]) -> Vec<String> {
    let mut notes = Vec::new();
    let missing: Vec<String> =
        seeds.first().iter().flat_map(|score| score.missing()).map(|task| task.to_string()).collect();
    if !missing.is_empty() {
        let scored = Task::ALL.len() - missing.len();
        notes.push(format!(
            "* {label}: the average of {scored} of the {} tasks; without {}.",
            Task::ALL.len(),
            missing.join(", ")
        ));
    }
    let undefined = |task: &Task| {
        seeds
            .iter()
            .filter_map(|score| score.task(*task))
            .any(|score| score.metrics.iter().any(|metric| metric.percent.is_none()))
    };
    let undefined: Vec<String> =
        Task::ALL.iter().filter(|task| undefined(task)).map(Task::to_string).collect();
    if !undefined.is_empty() {
        notes.push(format!(
            "{label}: {UNDEFINED} in {} is the correlation with constant predictions, taken as 0 in the average.",
            undefined.join(", ")
        ));
    }
    let invalid = |task: Task| {
        let scores = || seeds.iter().filter_map(move |score| score.task(task));
        let (invalid, examples): (usize, usize) =
            (scores().map(|score| score.invalid).sum(), scores().map(|score| score.examples).sum());
        (invalid > 0).then(|| format!("{task} {invalid} of {examples}"))
    };
    let invalid: Vec<String> = Task::ALL.into_iter().filter_map(invalid).collect();
    if !invalid.is_empty() {
        notes.push(format!("{label}: invalid outputs: {}.", invalid.join(", ")));
    }
    notes
}

/// Columns as wide as their widest cell, the first aligned to the left and the others to the right.
pub fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(row, "{cell:width$}"),
                _ => write!(row, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}
