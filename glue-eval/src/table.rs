//! Tables of results in the column order of the paper's Table 5.

use std::fmt::Write;

use crate::score::GlueScore;
use crate::task::Task;

/// Scores side by side: a row each.
#[derive(Clone, Debug, Default)]
pub struct ScoreTable {
    pub rows: Vec<(String, GlueScore)>,
    /// Sentences below the table, in addition to those that the scores themselves call for.
    pub notes: Vec<String>,
}

const MISSING: &str = "-";
const UNDEFINED: &str = "nan";

impl ScoreTable {
    /// Aligned columns under a header of two lines: tasks and metrics.
    pub fn text(&self) -> String {
        let mut lines = vec![vec![String::new()], vec![String::new()]];
        for (task, metric) in columns() {
            lines[0].push(task);
            lines[1].push(metric);
        }
        lines.extend(self.rows.iter().map(|(label, score)| cells(label, score)));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();

        let mut text = String::new();
        for line in &lines {
            let mut row = String::new();
            for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(row, "{cell:width$}"),
                    _ => write!(row, "  {cell:>width$}"),
                };
            }
            let _ = writeln!(text, "{}", row.trim_end());
        }
        self.all_notes().iter().for_each(|note| text += &format!("{note}\n"));
        text
    }

    /// A Markdown table; the notes follow as paragraphs.
    pub fn markdown(&self) -> String {
        let header: Vec<String> = columns().iter().map(|(task, metric)| format!("{task} {metric}")).collect();
        let mut text =
            format!("| | {} |\n|---|{}\n", header.join(" | ").trim_end(), "---:|".repeat(header.len()));
        for (label, score) in &self.rows {
            let row = cells(&label.replace('|', "\\|"), score);
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        self.all_notes().iter().for_each(|note| text += &format!("\n{}\n", note.replace('*', "\\*")));
        text
    }

    fn all_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (label, score) in &self.rows {
            let missing: Vec<String> = score.missing().iter().map(Task::to_string).collect();
            if !missing.is_empty() {
                let scored = Task::ALL.len() - missing.len();
                notes.push(format!(
                    "* {label}: the average of {scored} of the {} tasks; without {}.",
                    Task::ALL.len(),
                    missing.join(", ")
                ));
            }
            let undefined = |task: &Task| {
                score
                    .task(*task)
                    .is_some_and(|score| score.metrics.iter().any(|metric| metric.percent.is_none()))
            };
            let undefined: Vec<String> =
                Task::ALL.iter().filter(|task| undefined(task)).map(Task::to_string).collect();
            if !undefined.is_empty() {
                notes.push(format!(
                    "{label}: {UNDEFINED} in {} is the correlation with constant predictions, taken as 0 in the average.",
                    undefined.join(", ")
                ));
            }
            let invalid: Vec<String> = score
                .tasks()
                .filter(|score| score.invalid > 0)
                .map(|score| format!("{} {} of {}", score.task, score.invalid, score.examples))
                .collect();
            if !invalid.is_empty() {
                notes.push(format!("{label}: invalid outputs: {}.", invalid.join(", ")));
            }
        }
        notes.extend(self.notes.iter().cloned());
        notes
    }
}

/// Task and metric of every column but the first.
fn columns() -> Vec<(String, String)> {
    let of_task = |task: Task| task.metric_names().into_iter().map(move |metric| (task.to_string(), metric));
    let average = ("Average".to_owned(), String::new());
    Task::ALL.into_iter().flat_map(of_task).chain([average]).collect()
}

fn cells(label: &str, score: &GlueScore) -> Vec<String> {
    let mut cells = vec![label.to_owned()];
    for task in Task::ALL {
        for name in task.metric_names() {
            let metric =
                score.task(task).and_then(|score| score.metrics.iter().find(|metric| metric.name == name));
            cells.push(match metric.map(|metric| metric.percent) {
                None => MISSING.to_owned(),
                Some(None) => UNDEFINED.to_owned(),
                Some(Some(percent)) => format!("{percent:.2}"),
            });
        }
    }
    let partial = if score.missing().is_empty() { "" } else { "*" };
    cells.push(score.average().map_or(MISSING.to_owned(), |average| format!("{average:.2}{partial}")));
    cells
}
