//! Tables as text and Markdown.

use serde::Serialize;

/// Rows under a header. The first column is left-aligned, the others are right-aligned.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Table {
    /// The columns' titles.
    pub header: Vec<String>,
    /// Each has as many cells as the header.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table that has no rows yet.
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Table { header: header.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    /// Drops a column if it is empty.
    pub fn drop_empty(&mut self, name: &str) {
        let Some(column) = self.header.iter().position(|header| header == name) else { return };
        if self.rows.iter().all(|cells| cells[column].is_empty()) {
            self.header.remove(column);
            self.rows.iter_mut().for_each(|cells| drop(cells.remove(column)));
        }
    }

    /// Plain text, with columns aligned by spaces.
    pub fn text(&self) -> String {
        let lines: Vec<Vec<String>> = std::iter::once(&self.header).chain(&self.rows).cloned().collect();
        glue_eval::aligned(&lines)
    }

    /// A Markdown table; `|` in cells is escaped.
    pub fn markdown(&self) -> String {
        let row = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = format!("|---|{}\n", "---:|".repeat(self.header.len().saturating_sub(1)));
        let rows: String = self.rows.iter().map(|cells| row(cells)).collect();
        format!("{}{rule}{rows}", row(&self.header))
    }
}
