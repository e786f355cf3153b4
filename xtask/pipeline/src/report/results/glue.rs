//! Results on GLUE (the paper's Figure 3 and its Tables 3 and 5).

use std::collections::BTreeMap;

use anyhow::Result;
use glue_eval::{AtStep, Cell, GlueReport, ScoreTable, Summary, columns};
use serde::Serialize;

use super::{Group, ReadRun, Role, Training};
use crate::report::StageReport;
use crate::report::glue_table::{self, Beside, Named};
use crate::stage::{Input, fuse};

/// Results of one or several models.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GlueResults {
    /// The tasks and metrics that the rows have a column for.
    pub columns: Vec<(String, String)>,
    /// Of the models, then from elsewhere.
    pub rows: Vec<GlueRow>,
    /// Sentences below the table.
    pub notes: Vec<String>,
    /// The models by themselves.
    pub models: Vec<GlueModel>,
    /// How scores rise with pretraining, for trainings of which models on the way were scored.
    pub courses: Vec<Course>,
}

/// The average over tasks of models on the way of a training, at each task's best step (the paper's Figure 3).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Course {
    /// The name of the set of trainings.
    pub name: String,
    /// Whether the others are compared with it.
    pub is_baseline: bool,
    /// Steps of pretraining behind the models, ascending; 0 for a model as fused.
    pub steps: Vec<u64>,
    /// In percent, over the seeds of pretraining and of fine-tuning.
    pub mean: Vec<f64>,
    /// Over the same.
    pub deviation: Vec<Option<f64>>,
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct GlueRow {
    /// The model, and which of its steps.
    pub label: String,
    /// Whether it is of a model of these runs.
    pub measured: bool,
    /// One for each column.
    pub cells: Vec<GlueCell>,
}

/// A cell of the table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GlueCell {
    /// As the report in text shows it.
    pub text: String,
    /// In percent.
    pub mean: Option<f64>,
    /// Over seeds.
    pub deviation: Option<f64>,
    /// Whether it is within a standard deviation of the model that it is compared with.
    pub agrees: bool,
}

/// A model that was fine-tuned.
#[derive(Clone, Debug, Serialize)]
pub struct GlueModel {
    /// The stage that fine-tuned it, unique among all runs.
    pub name: String,
    /// The index of the training that it came from, if it did.
    pub training: Option<usize>,
    /// Steps of pretraining since its fusion, where they are known: 0 for a model as fused.
    pub pretrained: Option<u64>,
    /// The average over tasks at each task's best step.
    pub best: Option<(f64, Option<f64>)>,
    /// The average over tasks at the last step.
    pub last: Option<(f64, Option<f64>)>,
    /// The average over tasks at the steps at which every task was scored.
    pub points: Vec<GluePoint>,
    /// Outputs of the last step that were no answers, by task.
    pub invalid: Vec<Invalid>,
    /// The average over tasks at each task's best step, for each seed.
    #[serde(skip)]
    averages: Vec<f64>,
    /// Indices of the trainings that the model is on the way of: several may go on with one fusion.
    #[serde(skip)]
    on_the_way_of: Vec<usize>,
}

/// The average over all tasks after some steps of fine-tuning.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GluePoint {
    /// Updates.
    pub step: u64,
    /// In percent, over seeds.
    pub mean: f64,
    /// Over seeds.
    pub deviation: Option<f64>,
    /// The share of outputs that were no answers.
    pub invalid: f64,
}

/// Outputs that were no answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Invalid {
    /// The task.
    pub task: String,
    /// How many, over all seeds.
    pub invalid: usize,
    /// Of how many.
    pub examples: usize,
}

pub(super) fn results(
    runs: &[ReadRun],
    trainings: &[Training],
    sets: &[Group],
    beside: &Beside,
) -> Result<Option<GlueResults>> {
    let (mut named, mut models) = (Vec::new(), Vec::new());
    for (index, run) in runs.iter().enumerate() {
        for Named { name, report } in &run.report.models {
            let stage = run.stage(name);
            let name = if run.report.stages.is_empty() { run.name.clone() } else { run.full_name(name) };
            models.push(model(index, run, &name, stage, report, trainings));
            named.push(Named { name, report: report.clone() });
        }
    }
    let Some(table) = glue_table::table(&named, beside)? else { return Ok(None) };
    let courses = sets.iter().filter_map(|set| course(set, &models)).collect();
    Ok(Some(GlueResults { models, courses, ..shown(&table, named.len()) }))
}

/// `None` unless models after different numbers of steps were scored.
fn course(set: &Group, models: &[GlueModel]) -> Option<Course> {
    let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let own = |model: &&GlueModel| model.on_the_way_of.iter().any(|training| set.members.contains(training));
    // Averages over other tasks are others.
    let tasks =
        |model: &GlueModel| -> Vec<String> { model.invalid.iter().map(|own| own.task.clone()).collect() };
    let first = models.iter().find(own).map(tasks)?;
    for model in models.iter().filter(own).filter(|model| tasks(model) == first) {
        if let Some(step) = model.pretrained {
            by_step.entry(step).or_default().extend(&model.averages);
        }
    }
    let mut course = Course {
        name: set.name.clone(),
        is_baseline: set.role == Role::Baseline,
        steps: Vec::new(),
        mean: Vec::new(),
        deviation: Vec::new(),
    };
    for (step, averages) in by_step {
        let Some(Summary { mean, deviation }) = Summary::of(&averages) else { continue };
        course.steps.push(step);
        course.mean.push(mean);
        course.deviation.push(deviation);
    }
    (course.steps.len() > 1).then_some(course)
}

fn shown(table: &ScoreTable, models: usize) -> GlueResults {
    let shown = table.shown();
    let names = columns();
    let cell = |cell: &Cell| {
        let summary = cell.summary();
        GlueCell {
            text: cell.text(),
            mean: summary.map(|summary| summary.mean),
            deviation: summary.and_then(|summary| summary.deviation),
            agrees: matches!(cell, Cell::Value { agrees: true, .. }),
        }
    };
    let rows = table.rows.iter().enumerate().map(|(at, row)| GlueRow {
        label: row.label.clone(),
        // Each model has two rows, which come first.
        measured: at < 2 * models,
        cells: shown.iter().filter_map(|column| row.cells.get(*column)).map(cell).collect(),
    });
    GlueResults {
        columns: shown.iter().filter_map(|column| names.get(*column).cloned()).collect(),
        rows: rows.collect(),
        notes: table.all_notes().cloned().collect(),
        ..GlueResults::default()
    }
}

fn model(
    run: usize,
    read: &ReadRun,
    name: &str,
    stage: Option<&StageReport>,
    report: &GlueReport,
    trainings: &[Training],
) -> GlueModel {
    let input = stage.and_then(|stage| stage.entry.inputs.first()).map(|input| Input::parts(input));
    let (input, step) = match input {
        Some((name, step)) => (read.stage(name), step.and_then(|step| step.parse().ok())),
        None => (None, None),
    };
    let of_stage = |name: &str| trainings.iter().position(|own| own.run == run && own.stage == name);
    let training = input.and_then(|input| of_stage(&input.entry.name));
    let pretrained = match (input, training) {
        (Some(_), Some(at)) => {
            step.or_else(|| trainings.get(at).and_then(|own| own.curve.steps.last().copied()))
        }
        (Some(_), None) => Some(0),
        (None, _) => None,
    };
    // A fusion is where the trainings that go on with it begin.
    let begins = |fusion: &StageReport| {
        let from = |stage: &&StageReport| stage.entry.inputs.contains(&fusion.entry.name);
        let stages = read.report.stages.iter().filter(from);
        stages.filter_map(|stage| of_stage(&stage.entry.name)).collect()
    };
    let on_the_way_of = match (training, input) {
        (Some(training), _) => vec![training],
        (None, Some(fusion)) if fusion.entry.kind == fuse::KIND.name => begins(fusion),
        _ => Vec::new(),
    };
    let averages = |at: AtStep| -> Vec<f64> {
        report.scores(at).iter().filter_map(glue_eval::GlueScore::average).collect()
    };
    let average = |at: AtStep| Summary::of(&averages(at)).map(|summary| (summary.mean, summary.deviation));
    GlueModel {
        name: name.to_owned(),
        training,
        pretrained,
        best: average(AtStep::Best),
        last: average(AtStep::Last),
        points: points(report),
        invalid: invalid(report),
        averages: averages(AtStep::Best),
        on_the_way_of,
    }
}

fn points(report: &GlueReport) -> Vec<GluePoint> {
    // By step, one entry per seed: the score of all tasks at that step, and its invalid outputs.
    let mut by_step: BTreeMap<u64, Vec<(f64, usize, usize)>> = BTreeMap::new();
    for seed in &report.seeds {
        let steps = seed.tasks.iter().flat_map(|task| &task.evaluations).map(|evaluation| evaluation.step);
        for step in steps.collect::<std::collections::BTreeSet<_>>() {
            let at = |task: &glue_eval::TaskReport| {
                task.evaluations
                    .iter()
                    .find(|evaluation| evaluation.step == step)
                    .map(|own| own.score.clone())
            };
            let scores: Option<Vec<_>> = seed.tasks.iter().map(at).collect();
            let Some(scores) = scores else { continue };
            let invalid = scores.iter().map(|score| score.invalid).sum();
            let examples = scores.iter().map(|score| score.examples).sum();
            if let Some(average) = glue_eval::GlueScore::new(scores).average() {
                by_step.entry(step).or_default().push((average, invalid, examples));
            }
        }
    }
    let all = by_step.into_iter().filter(|(_, seeds)| seeds.len() == report.seeds.len());
    let point = |(step, seeds): (u64, Vec<(f64, usize, usize)>)| {
        let averages: Vec<f64> = seeds.iter().map(|(average, ..)| *average).collect();
        let Summary { mean, deviation } = Summary::of(&averages)?;
        let (invalid, examples) =
            seeds.iter().fold((0, 0), |(invalid, examples), seed| (invalid + seed.1, examples + seed.2));
        Some(GluePoint { step, mean, deviation, invalid: invalid as f64 / examples.max(1) as f64 })
    };
    all.filter_map(point).collect()
}

fn invalid(report: &GlueReport) -> Vec<Invalid> {
    let mut all: Vec<Invalid> = Vec::new();
    for task in report.seeds.iter().flat_map(|seed| &seed.tasks) {
        let (name, score) = (task.task.to_string(), &task.last.score);
        match all.iter_mut().find(|known| known.task == name) {
            Some(known) => {
                known.invalid += score.invalid;
                known.examples += score.examples;
            }
            None => all.push(Invalid { task: name, invalid: score.invalid, examples: score.examples }),
        }
    }
    all
}
