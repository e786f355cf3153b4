//! What the page's script draws, in few characters.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::results::{Matrix, Passing, Results, Role, Snapshot, Spread};

/// The data in the page.
#[derive(Serialize)]
pub struct Charts {
    /// In the order of the legend.
    sets: Vec<Set>,
    /// The baselines' final losses, by run.
    goals: Vec<Goal>,
    glue: Vec<Glue>,
    weights: Vec<Picture>,
    symmetry: Vec<Symmetry>,
}

#[derive(Serialize)]
struct Set {
    name: String,
    role: Role,
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

#[derive(Serialize)]
struct Glue {
    name: String,
    steps: Vec<u64>,
    mean: Vec<Short>,
    deviation: Vec<Option<Short>>,
    /// In percent.
    invalid: Vec<Short>,
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

#[derive(Serialize)]
struct Symmetry {
    name: String,
    steps: Vec<u64>,
    smallest: Vec<Short>,
    median: Vec<Short>,
    largest: Vec<Short>,
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
        let sets = results.sets.iter().filter(|set| !set.band.steps.is_empty());
        let baselines = results.sets.iter().filter(|set| set.role == Role::Baseline);
        let goal = |set: &crate::report::results::Group| {
            // The baseline passes its own end where it ends, once it has finished.
            set.passes?;
            Some(Goal { name: set.name.clone(), loss: set.last("loss")?.mean })
        };
        Charts {
            sets: sets
                .map(|set| Set {
                    name: set.name.clone(),
                    role: set.role,
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
                    passes: set.passes.filter(|_| set.role != Role::Baseline).and_then(|passes| {
                        let Passing { step, total_flops, loss, .. } = passes;
                        let row = set.band.steps.iter().position(|own| *own == step)?;
                        let (flops, tokens) = (*set.band.flops.get(row)?, *set.band.tokens.get(row)?);
                        Some(Point { step, total_flops, flops, tokens, loss })
                    }),
                })
                .collect(),
            goals: baselines.filter_map(goal).collect(),
            glue: results
                .glue
                .iter()
                .flat_map(|glue| &glue.models)
                .map(|model| Glue {
                    name: model.name.clone(),
                    steps: model.points.iter().map(|point| point.step).collect(),
                    mean: short(model.points.iter().map(|point| point.mean)),
                    deviation: model.points.iter().map(|point| point.deviation.map(Short)).collect(),
                    invalid: short(model.points.iter().map(|point| 100.0 * point.invalid)),
                })
                .collect(),
            weights: pictures(results),
            symmetry: results
                .weights
                .iter()
                .filter(|model| model.symmetry.len() > 1)
                .map(|model| Symmetry {
                    name: model.training.clone().unwrap_or_else(|| model.fusion.clone()),
                    steps: model.symmetry.iter().map(|point| point.step).collect(),
                    smallest: short(model.symmetry.iter().map(|point| point.asymmetry.smallest)),
                    median: short(model.symmetry.iter().map(|point| point.asymmetry.median)),
                    largest: short(model.symmetry.iter().map(|point| point.asymmetry.largest)),
                })
                .collect(),
        }
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
    let finite = |value: &f32| if value.is_finite() { *value } else { 0.0 };
    let largest =
        matrix.snapshots.iter().flat_map(|snapshot| snapshot.cells.iter().map(finite)).fold(0.0, f32::max);
    let code = |cell: &f32| {
        // A power makes noise of one percent visible; nothing but zero looks like zero.
        let share = if largest > 0.0 { (finite(cell) / largest).powf(SHADE) } else { 0.0 };
        format!("{:02x}", (255.0 * share).ceil() as u8)
    };
    let cells = |snapshot: &Snapshot| snapshot.cells.iter().map(code).collect::<String>();
    let size = matrix.snapshots.first().map_or([0, 0], |snapshot| snapshot.size);
    let inner = |cuts: &[usize], side: usize, cells: usize| {
        let inner = cuts.iter().filter(|cut| **cut != 0 && **cut != side);
        inner.map(|cut| *cut as f64 * cells as f64 / side.max(1) as f64).collect()
    };
    Picture {
        id,
        size,
        row_cuts: inner(&matrix.row_cuts, matrix.shape[0], size[0]),
        column_cuts: inner(&matrix.column_cuts, matrix.shape[1], size[1]),
        cells: matrix.snapshots.iter().map(cells).collect(),
    }
}

/// The power of a root mean square, as a share of the largest, that its shade is.
const SHADE: f32 = 0.5;
