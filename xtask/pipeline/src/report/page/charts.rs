//! What the page's script draws, in few characters.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::plot::{self, Axis, Look, MEASURES, Measure, Plot};
use crate::report::results::{Band, Matrix, Passing, Results, Role, Spread};

/// The data in the page.
#[derive(Serialize)]
pub struct Charts {
    measures: [Measure; 9],
    axes: BTreeMap<Axis, &'static str>,
    /// See [`plot::LATE`].
    late: usize,
    /// See [`plot::ROOM`].
    room: f64,
    /// In the order of the legend.
    sets: Vec<Set>,
    /// The baselines' final losses, by run.
    goals: Vec<Goal>,
    glue: Vec<Curves>,
    courses: Vec<Curves>,
    weights: Vec<Picture>,
    symmetry: Vec<Curves>,
}

#[derive(Serialize)]
struct Set {
    name: String,
    role: Role,
    look: Look,
    hidden: bool,
    seeds: usize,
    steps: Vec<u64>,
    tokens: Vec<u64>,
    flops: Vec<Short>,
    total_flops: Vec<Short>,
    values: BTreeMap<String, Values>,
    passes: Option<Point>,
}

#[derive(Serialize)]
struct Values {
    mean: Vec<Option<Short>>,
    /// Left out without any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deviation: Vec<Option<Short>>,
}

#[derive(Serialize)]
struct Point {
    step: u64,
    total_flops: f64,
    flops: f64,
    tokens: u64,
    loss: f64,
}

#[derive(Serialize)]
struct Goal {
    name: String,
    loss: f64,
}

/// A chart of its own.
#[derive(Serialize)]
struct Curves {
    x_label: &'static str,
    y_label: &'static str,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    look: Look,
    x: Vec<Short>,
    y: Vec<Option<Short>>,
    deviation: Vec<Option<Short>>,
}

/// A matrix as fused and as trained, on one scale.
#[derive(Serialize)]
struct Picture {
    /// The element that shows it.
    id: String,
    size: [usize; 2],
    /// In cells.
    row_cuts: Vec<f64>,
    column_cuts: Vec<f64>,
    /// Two hexadecimal digits a cell, row by row, for each snapshot.
    cells: Vec<String>,
}

/// A number with as many digits as a curve shows.
#[derive(Clone, Copy)]
struct Short(f64);

impl Serialize for Short {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 0.0 || !self.0.is_finite() {
            return serializer.serialize_f64(if self.0 == 0.0 { 0.0 } else { f64::NAN });
        }
        let rounded: f64 = format!("{:.5e}", self.0).parse().unwrap_or(self.0);
        match rounded.fract() == 0.0 && rounded.abs() < 1e15 {
            true => serializer.serialize_i64(rounded as i64),
            false => serializer.serialize_f64(rounded),
        }
    }
}

fn short(values: impl IntoIterator<Item = f64>) -> Vec<Short> {
    values.into_iter().map(Short).collect()
}

impl Values {
    fn new(spread: &Spread) -> Self {
        let column = |values: &[Option<f64>]| values.iter().map(|value| value.map(Short)).collect();
        let deviation = &spread.deviation;
        let several = deviation.iter().any(Option::is_some);
        Values { mean: column(&spread.mean), deviation: if several { column(deviation) } else { Vec::new() } }
    }
}

impl Charts {
    pub fn new(results: &Results) -> Self {
        let points = |passes: Option<(usize, Passing)>, band: &Band| {
            let (row, Passing { step, total_flops, loss, .. }) = passes?;
            let (flops, tokens) = (*band.flops.get(row)?, *band.tokens.get(row)?);
            Some(Point { step, total_flops, flops, tokens, loss })
        };
        Charts {
            measures: MEASURES,
            axes: Axis::labels(),
            late: plot::LATE,
            room: plot::ROOM,
            sets: plot::sets(results)
                .into_iter()
                .map(|plot::Drawn { set, look, hidden, passes }| Set {
                    name: set.name.clone(),
                    role: set.role,
                    look,
                    hidden,
                    seeds: set.band.seeds,
                    steps: set.band.steps.clone(),
                    tokens: set.band.tokens.clone(),
                    flops: short(set.band.flops.iter().copied()),
                    total_flops: short(set.band.total_flops.iter().copied()),
                    values: set
                        .band
                        .values
                        .iter()
                        .filter(|(name, _)| *name != "loss_error")
                        .map(|(name, spread)| (name.clone(), Values::new(spread)))
                        .collect(),
                    passes: points(passes, &set.band),
                })
                .collect(),
            goals: plot::goals(results)
                .into_iter()
                .map(|(name, loss)| Goal { name: name.to_owned(), loss })
                .collect(),
            glue: plot::glue(results).iter().map(Curves::new).collect(),
            courses: plot::courses(results).iter().map(Curves::new).collect(),
            weights: pictures(results),
            symmetry: plot::symmetry(results).iter().map(Curves::new).collect(),
        }
    }
}

impl Curves {
    fn new(plot: &Plot) -> Self {
        let optional = |values: &[Option<f64>]| values.iter().map(|value| value.map(Short)).collect();
        let line = |line: &plot::Line| Line {
            name: line.name.clone(),
            look: line.look,
            x: short(line.x.iter().copied()),
            y: optional(&line.y),
            deviation: optional(&line.deviation),
        };
        Curves { x_label: plot.x_label, y_label: plot.y_label, lines: plot.lines.iter().map(line).collect() }
    }
}

/// The element that shows a matrix of a model.
pub fn picture_id(model: usize, matrix: usize) -> String {
    format!("matrix-{model}-{matrix}")
}

fn pictures(results: &Results) -> Vec<Picture> {
    let mut pictures = Vec::new();
    for (at, model) in results.weights.iter().enumerate() {
        for (number, matrix) in model.matrices.iter().enumerate() {
            pictures.push(picture(picture_id(at, number), matrix));
        }
    }
    pictures
}

fn picture(id: String, matrix: &Matrix) -> Picture {
    let shades = matrix.shades();
    let hexadecimal = |shades: &Vec<u8>| shades.iter().map(|shade| format!("{shade:02x}")).collect();
    let [row_cuts, column_cuts] = matrix.cuts_between_cells();
    Picture {
        id,
        size: matrix.size(),
        row_cuts,
        column_cuts,
        cells: shades.iter().map(hexadecimal).collect(),
    }
}
