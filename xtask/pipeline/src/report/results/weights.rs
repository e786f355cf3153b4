//! What a fused model's matrices look like, and what training has made of them: the parents' blocks, and the
//! connections between them.

use std::fs;
use std::path::{Path, PathBuf};

use fusion_core::checkpoint::Checkpoint;
use fusion_core::plan::{FusionPlan, PlannedParam};
use fusion_core::{HostTensor, TensorSource};
use serde::Serialize;
use serde_json::Value;
use t5_model::T5Config;
use t5_model::method::FusionParent;
use t5_model::train::kept_model;

use super::{ReadRun, graph, model_in};
use crate::checkpoint::{Asymmetry, asymmetry_of};
use crate::report::StageReport;
use crate::source::hub::HubName;
use crate::stage::{Kind, fuse};

/// A fused model, and one that was trained from it, if there is any.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FusedModel {
    /// The fusion, unique among all runs.
    pub fusion: String,
    /// The method that made it.
    pub method: String,
    /// The models that it was made from.
    pub parents: Vec<String>,
    /// The training that went on with it.
    pub training: Option<String>,
    /// Some of its matrices.
    pub matrices: Vec<Matrix>,
    /// How far apart the halves of these matrices are, at each step of which there are weights.
    pub symmetry: Vec<SymmetryPoint>,
}

/// A matrix of a fused model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Matrix {
    /// The parameter.
    pub name: String,
    /// Stored, that is output × input.
    pub shape: [usize; 2],
    /// Where the rows of its blocks begin, and where the last ends.
    pub row_cuts: Vec<usize>,
    /// The same of the columns.
    pub column_cuts: Vec<usize>,
    /// As fused, and after training.
    pub snapshots: Vec<Snapshot>,
}

/// A matrix at a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// Steps of training since the fusion.
    pub step: u64,
    /// The root mean square of each block, row by row.
    pub blocks: Vec<Vec<f64>>,
    /// The size of the picture, in cells.
    pub size: [usize; 2],
    /// The root mean square within each cell of the picture, row by row.
    pub cells: Vec<f32>,
}

/// The symmetry of a model at a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SymmetryPoint {
    /// Steps of training since the fusion.
    pub step: u64,
    /// Over the matrices shown.
    #[serde(flatten)]
    pub asymmetry: Asymmetry,
}

impl Matrix {
    /// Rows and columns of its pictures, in cells.
    pub fn size(&self) -> [usize; 2] {
        self.snapshots.first().map_or([0, 0], |snapshot| snapshot.size)
    }

    /// For each snapshot, the shades of its cells from 0 to 255, on one scale. Nothing but zero looks like zero.
    pub fn shades(&self) -> Vec<Vec<u8>> {
        let finite = |value: &f32| if value.is_finite() { *value } else { 0.0 };
        let all = self.snapshots.iter().flat_map(|snapshot| snapshot.cells.iter().map(finite));
        let largest = all.fold(0.0, f32::max);
        let shade = |cell: &f32| {
            // A power makes noise of one percent visible.
            let share = if largest > 0.0 { (finite(cell) / largest).powf(SHADE) } else { 0.0 };
            (255.0 * share).ceil() as u8
        };
        self.snapshots.iter().map(|snapshot| snapshot.cells.iter().map(shade).collect()).collect()
    }

    /// Where the lines between blocks are, in cells from above and from the left.
    pub fn cuts_between_cells(&self) -> [Vec<f64>; 2] {
        let inner = |cuts: &[usize], side: usize, cells: usize| {
            let inner = cuts.iter().filter(|cut| **cut != 0 && **cut != side);
            inner.map(|cut| *cut as f64 * cells as f64 / side.max(1) as f64).collect()
        };
        let [rows, columns] = self.size();
        [inner(&self.row_cuts, self.shape[0], rows), inner(&self.column_cuts, self.shape[1], columns)]
    }
}

impl Snapshot {
    /// Its step in words.
    pub fn label(&self) -> String {
        match self.step {
            0 => "as fused".to_owned(),
            step => format!("after {} steps", crate::numbers::thousands(step)),
        }
    }
}

/// The power of a root mean square, as a share of the largest, that its shade is.
const SHADE: f32 = 0.5;
/// The largest side of a picture, in cells.
const CELLS: usize = 48;
/// More rows or columns of blocks than this are no picture any more.
const MOST_BLOCKS: usize = 16;
/// The matrices that are shown: in the first block of each stack, what attention asks and what the feed-forward
/// network returns, and what the decoder takes from the encoder.
const SHOWN: [&str; 4] = [
    "encoder.block.0.layer.0.SelfAttention.q.weight",
    "encoder.block.0.layer.1.DenseReluDense.wo.weight",
    "decoder.block.0.layer.1.EncDecAttention.k.weight",
    "decoder.block.0.layer.2.DenseReluDense.wo.weight",
];

/// The fused models of a run whose weights can be read. What cannot be is left out: a picture is no reason to
/// refuse a report.
pub(super) fn fused(run: &ReadRun) -> Vec<FusedModel> {
    let fusions = run.report.stages.iter().filter(|stage| stage.finished);
    fusions.flat_map(|stage| of_fusion(run, stage).unwrap_or_default()).collect()
}

/// One for each training that went on with a fusion, or one if none did.
fn of_fusion(run: &ReadRun, stage: &StageReport) -> Option<Vec<FusedModel>> {
    let settings = stage.settings.as_ref().filter(|_| stage.entry.kind == fuse::KIND.name)?;
    let method = graph::method(settings)?;
    let parents = settings.get("parents")?.as_array()?;
    let directories: Option<Vec<PathBuf>> = parents.iter().map(|parent| directory_of(run, parent)).collect();
    let mut all = Vec::new();
    for (label, directory) in stage.entry.inputs.iter().zip(directories?) {
        let (checkpoint, config) = T5Config::open(&directory).ok()?;
        drop(checkpoint);
        let parent = FusionParent { label: label.clone(), config, blake3: None, path: directory };
        all.extend(std::iter::repeat_n(parent, method.parent_copies()));
    }
    let plan = method.plan(&all).ok()?.plan;
    let params: Vec<&PlannedParam> = shown(&plan);
    let child = model_in(&run.directory(stage))?;
    let trained: Vec<&StageReport> = run
        .report
        .stages
        .iter()
        .filter(|other| other.entry.inputs.contains(&stage.entry.name))
        .filter(|other| Kind::named(&other.entry.kind).is_some_and(|kind| kind.arm.is_some()))
        .collect();
    let model = |training: Option<&StageReport>| {
        let mut points = vec![(0, child.clone())];
        if let Some(training) = training {
            points.extend(saved(&run.directory(training), training));
        }
        let mut model = FusedModel {
            fusion: run.full_name(&stage.entry.name),
            method: plan.method.clone(),
            parents: all.iter().map(|parent| parent.label.clone()).collect(),
            training: training.map(|training| run.full_name(&training.entry.name)),
            matrices: Vec::new(),
            symmetry: Vec::new(),
        };
        fill(&mut model, &params, &points);
        (!model.matrices.is_empty()).then_some(model)
    };
    let models: Vec<FusedModel> = match trained.is_empty() {
        true => model(None).into_iter().collect(),
        false => trained.into_iter().filter_map(|training| model(Some(training))).collect(),
    };
    Some(models)
}

/// The parameters to show of a plan: those that are usually shown, or the first that have several places.
fn shown(plan: &FusionPlan) -> Vec<&PlannedParam> {
    let has_blocks = |param: &&PlannedParam| {
        param.dims.len() == 2 && param.placements.len() + param.absent.len() > 1 && cuts(param).is_some()
    };
    let candidates: Vec<&PlannedParam> = plan.params.iter().filter(has_blocks).collect();
    let named: Vec<&PlannedParam> = SHOWN
        .iter()
        .filter_map(|name| candidates.iter().find(|param| param.name == *name).copied())
        .collect();
    if named.is_empty() { candidates.into_iter().take(SHOWN.len()).collect() } else { named }
}

/// The directory of a fusion's parent, as its settings name it. A model on the Hub is only looked for in the cache.
fn directory_of(run: &ReadRun, parent: &Value) -> Option<PathBuf> {
    let text = |key: &str| parent.get(key).and_then(Value::as_str);
    match (text("stage"), text("path"), text("hub")) {
        (Some(stage), ..) => match parent.get("step").and_then(Value::as_u64) {
            Some(step) => {
                let kept = kept_model(&run.place.join(stage), step);
                // The model of the last step is the training's result.
                if kept.join("config.json").is_file() { Some(kept) } else { model_in(&run.place.join(stage)) }
            }
            None => model_in(&run.place.join(stage)),
        },
        (_, Some(path), _) => Some(path.into()),
        (.., Some(name)) => name.strip_prefix(HubName::PREFIX)?.parse::<HubName>().ok()?.cached(),
        _ => None,
    }
}

/// The checkpoints of a training by their steps, the final model last.
fn saved(directory: &Path, training: &StageReport) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(directory.join("checkpoints")).into_iter().flatten().flatten();
    let step = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()?;
        path.join("config.json").is_file().then_some((name, path))
    };
    let mut points: Vec<(u64, PathBuf)> = entries.filter_map(|entry| step(entry.path())).collect();
    let steps = training.shown.as_ref().and_then(|shown| shown.overview.steps);
    if let (Some(model), Some(steps)) = (model_in(directory), steps) {
        points.retain(|(step, _)| *step != steps);
        points.push((steps, model));
    }
    points.sort();
    points
}

/// Reads the matrices at every point; of the pictures, only the first and the last are kept.
fn fill(model: &mut FusedModel, params: &[&PlannedParam], points: &[(u64, PathBuf)]) {
    model.matrices = params
        .iter()
        .filter_map(|param| {
            let [row_cuts, column_cuts] = cuts(param)?;
            let shape = [*row_cuts.last()?, *column_cuts.last()?];
            Some(Matrix { name: param.name.clone(), shape, row_cuts, column_cuts, snapshots: Vec::new() })
        })
        .collect();
    let last = points.len().saturating_sub(1);
    for (at, (step, directory)) in points.iter().enumerate() {
        let Ok(checkpoint) = Checkpoint::open(directory) else { continue };
        let mut asymmetries = Vec::new();
        for matrix in &mut model.matrices {
            let Ok(tensor) = checkpoint.load_f32(&matrix.name) else { continue };
            if tensor.shape != matrix.shape {
                continue;
            }
            asymmetries.extend(asymmetry_of(&tensor.data, matrix.shape[1]));
            if at == 0 || at == last {
                matrix.snapshots.push(snapshot(*step, &tensor, matrix));
            }
        }
        let asymmetry = Asymmetry::of(asymmetries);
        model.symmetry.extend(asymmetry.map(|asymmetry| SymmetryPoint { step: *step, asymmetry }));
    }
    model.matrices.retain(|matrix| !matrix.snapshots.is_empty());
}

fn snapshot(step: u64, tensor: &HostTensor, matrix: &Matrix) -> Snapshot {
    let even = |size: usize| -> Vec<usize> {
        let cells = size.clamp(1, CELLS);
        (0..=cells).map(|cell| cell * size / cells).collect()
    };
    let blocks = squares(tensor, &matrix.row_cuts, &matrix.column_cuts);
    let (rows, columns) = (even(matrix.shape[0]), even(matrix.shape[1]));
    let cells = squares(tensor, &rows, &columns);
    Snapshot {
        step,
        blocks,
        size: [rows.len() - 1, columns.len() - 1],
        cells: cells.into_iter().flatten().map(|value| value as f32).collect(),
    }
}

/// Root mean squares between the cuts.
fn squares(tensor: &HostTensor, rows: &[usize], columns: &[usize]) -> Vec<Vec<f64>> {
    let width = columns.last().copied().unwrap_or_default();
    let mut all = Vec::new();
    for band in rows.windows(2) {
        let mut sums = vec![0.0; columns.len().saturating_sub(1)];
        for row in band[0]..band[1] {
            let Some(values) = tensor.data.get(row * width..(row + 1) * width) else { continue };
            for (sum, part) in sums.iter_mut().zip(columns.windows(2)) {
                *sum += values[part[0]..part[1]].iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
            }
        }
        let mean = |(sum, part): (&f64, &[usize])| {
            (sum / ((band[1] - band[0]) * (part[1] - part[0])).max(1) as f64).sqrt()
        };
        all.push(sums.iter().zip(columns.windows(2)).map(mean).collect());
    }
    all
}

/// Where a matrix is cut into the parents' places, in stored rows and columns. `None` if there is only one
/// place, or so many that nobody could see them.
fn cuts(param: &PlannedParam) -> Option<[Vec<usize>; 2]> {
    let [rows, columns] = param.dims.as_slice() else { return None };
    let mut first = 0;
    let cut = |dim: &fusion_core::table::Dim, first: usize| {
        let inner: usize = dim.factors.iter().skip(1).map(|factor| factor.size).product();
        let size = dim.size();
        let boxes = param.placements.iter().map(|place| (&place.offset, &place.extent));
        let absent = param.absent.iter().map(|place| (&place.offset, &place.extent));
        let mut cuts = vec![0, size];
        for (offset, extent) in boxes.chain(absent) {
            let (Some(offset), Some(extent)) = (offset.get(first), extent.get(first)) else { continue };
            cuts.extend([offset * inner, (offset + extent) * inner]);
        }
        cuts.retain(|cut| *cut <= size);
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    };
    let row_cuts = cut(rows, first);
    first += rows.factors.len();
    let column_cuts = cut(columns, first);
    let (across, down) = (column_cuts.len() - 1, row_cuts.len() - 1);
    let has_blocks = across * down > 1 && across <= MOST_BLOCKS && down <= MOST_BLOCKS;
    has_blocks.then_some([row_cuts, column_cuts])
}
