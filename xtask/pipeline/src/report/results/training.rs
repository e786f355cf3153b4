//! Learning curves, of finished trainings and of those under way.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use fusion_core::lineage::Lineage;
use serde::Serialize;
use serde_json::Value;
use t5_model::train::EvaluationPoint;

use super::graph::State;
use super::sets::Passing;
use super::{ReadRun, graph, model_in};
use crate::report::StageReport;
use crate::stage::pretrain::{Logged, Measured};
use crate::stage::{Arm, Kind, pretrain};

/// A training of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Training {
    /// The index of its run among those that were given.
    pub run: usize,
    /// Unique among all runs.
    pub name: String,
    /// Its stage's name.
    pub stage: String,
    /// The stage's name in the recipe, which its fellows with other sets of seeds share.
    pub recipe_name: String,
    /// How far it has got.
    pub state: State,
    /// Of its data and of its initial weights, where it is known.
    pub seed: Option<u64>,
    /// Whether the recipe compares it.
    pub compared: bool,
    /// Parameters of the model, once it has finished.
    pub parameters: Option<u64>,
    /// Floating-point operations behind the model that it started from; a parent that occurs twice counts once.
    pub parents_flops: f64,
    /// Its evaluations on held-out text.
    pub curve: Curve,
    /// What it measured on the text that it was trained on.
    pub log: Log,
    /// When it first had the baseline's final loss, if it had it.
    pub passes: Option<Passing>,
}

/// Evaluations in the order of their steps. All columns are equally long.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Curve {
    /// Updates of the weights.
    pub steps: Vec<u64>,
    /// Input and target tokens of this training.
    pub tokens: Vec<u64>,
    /// Floating-point operations of this training alone.
    pub flops: Vec<f64>,
    /// The same with those of its parents.
    pub total_flops: Vec<f64>,
    /// The [values of a quality](t5_model::train::Quality::values) by name; `None` where one was not measured.
    pub values: BTreeMap<String, Vec<Option<f64>>>,
}

/// Means over the updates between two lines of the log. All columns are equally long; there may be
/// thousands.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Log {
    /// The last update of each.
    pub steps: Vec<u64>,
    /// Cross-entropy; `None` if it is not a number.
    pub loss: Vec<Option<f64>>,
    /// Before clipping.
    pub gradient_norm: Vec<Option<f64>>,
    /// Of the last update.
    pub learning_rate: Vec<Option<f64>>,
    /// Input and target tokens per second, evaluations and checkpoints left out.
    pub tokens_per_second: Vec<Option<f64>>,
    /// Input and target tokens so far.
    pub tokens: Vec<u64>,
}

impl Training {
    /// Its evaluations as those of an arm of a comparison.
    pub fn last(&self, value: &str) -> Option<f64> {
        self.curve.values.get(value)?.last().copied().flatten()
    }

    /// Floating-point operations of this training so far.
    pub fn own_flops(&self) -> f64 {
        self.curve.flops.last().copied().unwrap_or_default()
    }

    /// Tokens per second over the whole training, as far as it was logged.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let Log { tokens, tokens_per_second, .. } = &self.log;
        let (mut all, mut seconds, mut before) = (0.0, 0.0, 0);
        for (&tokens, speed) in tokens.iter().zip(tokens_per_second) {
            let own = tokens.saturating_sub(before) as f64;
            before = tokens;
            if let Some(speed) = speed.filter(|speed| *speed > 0.0) {
                all += own;
                seconds += own / speed;
            }
        }
        (seconds > 0.0).then(|| all / seconds)
    }
}

impl Curve {
    /// The columns of these evaluations.
    pub fn new(parents_flops: f64, evaluations: &[EvaluationPoint]) -> Self {
        let mut curve = Curve::default();
        for (row, point) in evaluations.iter().enumerate() {
            curve.steps.push(point.step);
            curve.tokens.push(point.tokens);
            curve.flops.push(point.flops);
            curve.total_flops.push(parents_flops + point.flops);
            let named =
                point.quality.values().chain(point.quality.loss_error.map(|error| ("loss_error", error)));
            for (name, value) in named {
                let column = curve.values.entry(name.to_owned()).or_default();
                column.resize(row, None);
                column.push(Some(value).filter(|value| value.is_finite()));
            }
        }
        let rows = evaluations.len();
        curve.values.values_mut().for_each(|column| column.resize(rows, None));
        curve
    }
}

/// The trainings of a run.
pub(super) fn trainings(index: usize, run: &ReadRun) -> Result<Vec<Training>> {
    let mut trainings = Vec::new();
    for stage in &run.report.stages {
        if Kind::named(&stage.entry.kind).is_none_or(|kind| kind.arm.is_none()) {
            continue;
        }
        let Measured { evaluations, logged } = measured(&run.directory(stage))?;
        let Arm { parents_flops, evaluations, .. } = arm_of(run, stage, evaluations)?;
        let compared = run.report.file.as_ref().and_then(|file| file.comparison.as_ref());
        let overview = stage.shown.as_ref().map(|shown| shown.overview).unwrap_or_default();
        trainings.push(Training {
            run: index,
            name: run.full_name(&stage.entry.name),
            stage: stage.entry.name.clone(),
            recipe_name: stage.entry.recipe_name().to_owned(),
            state: graph::state(run, stage)?,
            seed: stage.settings.as_ref().and_then(|settings| settings.get("seed")?.as_u64()),
            compared: compared.is_some_and(|comparison| {
                let own = stage.entry.recipe_name();
                comparison.baseline == own || comparison.arms.iter().any(|arm| arm == own)
            }),
            parameters: overview.parameters,
            parents_flops,
            curve: Curve::new(parents_flops, &evaluations),
            log: log(&logged),
            passes: None,
        });
    }
    Ok(trainings)
}

/// How a training became better, even if it has not finished.
pub(super) fn arm(run: &ReadRun, stage: &StageReport) -> Result<Arm> {
    arm_of(run, stage, measured(&run.directory(stage))?.evaluations)
}

/// Empty before a training has begun.
fn measured(directory: &Path) -> Result<Measured> {
    match directory.join("metrics.jsonl").is_file() {
        true => Measured::read(directory),
        false => Ok(Measured::default()),
    }
}

fn arm_of(run: &ReadRun, stage: &StageReport, evaluations: Vec<EvaluationPoint>) -> Result<Arm> {
    let name = stage.entry.name.clone();
    let result = stage.result.as_ref().and_then(|result| serde_json::from_value(result.clone()).ok());
    let parents_flops = match result {
        Some(pretrain::Trained { flops, total_flops, .. }) => total_flops - flops,
        None => started_from(run, stage).unwrap_or_default(),
    };
    Ok(Arm { name, seed_set: stage.entry.seed_set.clone(), parents_flops, evaluations })
}

/// The computation behind the model that an unfinished training started from.
fn started_from(run: &ReadRun, stage: &StageReport) -> Option<f64> {
    let model = stage.settings.as_ref()?.get("start")?.get("model")?;
    let directory = match (model.get("stage"), model.get("path")) {
        (Some(Value::String(stage)), _) => model_in(&run.place.join(stage))?,
        (_, Some(Value::String(path))) => path.into(),
        _ => return None,
    };
    Some(Lineage::read(&directory).ok()??.total_flops())
}

fn log(lines: &[Logged]) -> Log {
    let mut log = Log::default();
    let finite = |value: f64| Some(value).filter(|value| value.is_finite());
    for line in lines {
        log.steps.push(line.step);
        log.tokens.push(line.tokens);
        log.loss.push(finite(line.loss));
        log.gradient_norm.push(finite(line.gradient_norm));
        log.learning_rate.push(finite(line.learning_rate));
        log.tokens_per_second.push(finite(line.tokens_per_second));
    }
    log
}
