//! A fused model's matrices as pictures, as fused and as trained.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::report::page::rms;
use crate::report::results::{FusedModel, Matrix};

/// The longer side of a picture.
const SIDE: f64 = 200.0;
const MARGIN: f64 = 16.0;
const GAP: f64 = 28.0;
/// Above a picture for its name and its state.
const HEAD: f64 = 34.0;
const LINE: f64 = 13.0;
/// More columns of blocks than this leave no room for their numbers.
const MOST_NUMBERS: usize = 4;
/// Cells are drawn in so many shades, one path each.
const SHADES: u32 = 32;

/// What the template puts together.
#[derive(Serialize)]
pub struct Drawing {
    width: f64,
    height: f64,
    margin: f64,
    title: String,
    heading: String,
    labels: Vec<Label>,
    pictures: Vec<Picture>,
}

#[derive(Serialize)]
struct Label {
    x: f64,
    y: f64,
    text: String,
    muted: bool,
    small: bool,
}

#[derive(Serialize)]
struct Picture {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    title: String,
    /// Of a cell.
    scale: [f64; 2],
    shades: Vec<Shade>,
    cuts: String,
}

#[derive(Serialize)]
struct Shade {
    opacity: String,
    path: String,
}

impl Drawing {
    pub fn new(model: &FusedModel) -> Self {
        let name = model.training.as_deref().unwrap_or(&model.fusion);
        let mut drawing = Drawing {
            width: 0.0,
            height: 0.0,
            margin: MARGIN,
            title: format!("Weights of {name}"),
            heading: format!("{name}: {} of {}", model.method, model.parents.join(" + ")),
            labels: Vec::new(),
            pictures: Vec::new(),
        };
        let pitch = SIDE + GAP;
        let mut top = MARGIN + 26.0;
        // Two matrices side by side, each with its snapshots.
        for pair in model.matrices.chunks(2) {
            let mut left = MARGIN;
            let mut bottom: f64 = top;
            for matrix in pair {
                bottom = bottom.max(drawing.matrix(matrix, left, top));
                left += pitch * matrix.snapshots.len().max(1) as f64;
            }
            drawing.width = drawing.width.max(left - GAP + MARGIN);
            top = bottom + GAP;
        }
        drawing.height = top - GAP + MARGIN;
        let heading = super::width(&drawing.heading, 14.0) + 2.0 * MARGIN;
        drawing.width = drawing.width.max(heading);
        drawing
    }

    /// How far down it goes.
    fn matrix(&mut self, matrix: &Matrix, left: f64, top: f64) -> f64 {
        let shape = format!("{} × {}", matrix.shape[0], matrix.shape[1]);
        let longer = matrix.shape[0].max(matrix.shape[1]).max(1) as f64;
        let [height, width] = matrix.shape.map(|side| SIDE * side as f64 / longer);
        let [rows, columns] = matrix.size();
        let scale = [width / columns.max(1) as f64, height / rows.max(1) as f64];
        self.label(left, top + 10.0, format!("{}  {shape}", matrix.name), false);
        let mut bottom = top + HEAD + height;
        for (at, (snapshot, shades)) in matrix.snapshots.iter().zip(matrix.shades()).enumerate() {
            let (x, y) = (left + at as f64 * (SIDE + GAP), top + HEAD);
            self.label(x, y - 7.0, snapshot.label(), true);
            let mut cuts = String::new();
            let [row_cuts, column_cuts] = matrix.cuts_between_cells();
            // Writing to a string cannot fail.
            for cut in row_cuts {
                let _ = write!(cuts, "M0 {:.1}h{width:.1}", cut * scale[1]);
            }
            for cut in column_cuts {
                let _ = write!(cuts, "M{:.1} 0v{height:.1}", cut * scale[0]);
            }
            self.pictures.push(Picture {
                x,
                y,
                width,
                height,
                title: format!("{} {}", matrix.name, snapshot.label()),
                scale,
                shades: paths(&shades, columns),
                cuts,
            });
            let across = snapshot.blocks.first().map_or(0, Vec::len);
            if across > MOST_NUMBERS || snapshot.blocks.len() > MOST_NUMBERS {
                continue;
            }
            for (row, blocks) in snapshot.blocks.iter().enumerate() {
                let y = y + height + 3.0 + LINE * (row + 1) as f64;
                bottom = bottom.max(y);
                for (column, value) in blocks.iter().enumerate() {
                    let x = x + width * (column as f64 + 0.5) / across as f64;
                    self.labels.push(Label { x, y, text: rms(*value), muted: true, small: true });
                }
            }
        }
        bottom
    }

    fn label(&mut self, x: f64, y: f64, text: String, muted: bool) {
        self.labels.push(Label { x, y, text, muted, small: false });
    }
}

/// Cells of equal shade, row by row; what is zero has none.
fn paths(shades: &[u8], columns: usize) -> Vec<Shade> {
    let level = |shade: u8| (u32::from(shade) * SHADES).div_ceil(255);
    let mut paths: BTreeMap<u32, String> = BTreeMap::new();
    for (row, cells) in shades.chunks(columns.max(1)).enumerate() {
        let mut column = 0;
        for cells in cells.chunk_by(|one, other| level(*one) == level(*other)) {
            let level = cells.first().map_or(0, |shade| level(*shade));
            if level > 0 {
                let path = paths.entry(level).or_default();
                let _ = write!(path, "M{column} {row}h{0}v1h-{0}z", cells.len());
            }
            column += cells.len();
        }
    }
    let opacity = |level: u32| format!("{:.3}", f64::from(level) / f64::from(SHADES));
    paths.into_iter().map(|(level, path)| Shade { opacity: opacity(level), path }).collect()
}

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn cells_of_a_shade_are_one_path() {
        let paths = paths(&[0, 255, 255, 1, 0, 255], 3);
        let paths: Vec<(&str, &str)> =
            paths.iter().map(|own| (own.opacity.as_str(), own.path.as_str())).collect();
        assert_eq!(paths, [("0.031", "M0 1h1v1h-1z"), ("1.000", "M1 0h2v1h-2zM2 1h1v1h-1z")]);
    }
}
