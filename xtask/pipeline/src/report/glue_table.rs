//! The GLUE table: models side by side, and next to published figures.

use anyhow::{Context, Result};
use glue_eval::{GlueReport, Row, ScoreTable, published_rows};

/// A model's results under its name.
pub struct Named {
    /// What the model's rows are called.
    pub name: String,
    /// The model's scores on the tasks.
    pub report: GlueReport,
}

/// What a table of several models shows in addition.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The model that the others are compared with; the first if unnamed.
    pub baseline: Option<String>,
    /// Rows from elsewhere.
    pub rows: Vec<Row>,
}

/// Best and last steps of all models, with published figures. `None` without a model.
pub fn table(models: &[Named], beside: &Beside) -> Result<Option<ScoreTable>> {
    let position = match &beside.baseline {
        None => 0,
        Some(name) => {
            let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let unknown = || format!("no GLUE result is called {name:?}; there are: {known}");
            names.iter().position(|known| known == name).with_context(unknown)?
        }
    };
    let Some(baseline) = models.get(position) else { return Ok(None) };
    let reference = baseline.report.table(&baseline.name).rows;
    let mut table = ScoreTable::default();
    for (at, Named { name, report }) in models.iter().enumerate() {
        let ScoreTable { mut rows, notes } = report.table(name);
        if at != position {
            rows.iter_mut().zip(&reference).for_each(|(row, reference)| row.compare_with(reference));
        }
        table.rows.extend(rows);
        for note in notes {
            let of_all = models.iter().all(|model| model.report.notes().contains(&note));
            let note = if of_all { note } else { format!("{name}: {note}") };
            if !table.notes.contains(&note) {
                table.notes.push(note);
            }
        }
    }
    if models.len() > 1 {
        table.notes.push(match table.rows.iter().any(Row::has_deviations) {
            true => format!(
                "≈ differs from {} at the same step by no more than a standard deviation, the larger of the two.",
                baseline.name
            ),
            false => "One seed each: a difference means something only if it exceeds what another seed changes.".into(),
        });
    }
    table.rows.extend(beside.rows.iter().cloned());
    table.rows.extend(published_rows());
    Ok(Some(table))
}
