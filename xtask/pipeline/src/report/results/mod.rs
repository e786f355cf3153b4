//! Everything that a page, a figure or a terminal draws of one or several runs, as plain data. Runs may be
//! unfinished, fail, come from other machines, or be trainings by themselves.

mod costs;
pub(super) mod examples;
mod glue;
mod graph;
mod layout;
mod provenance;
mod sets;
mod training;
mod weights;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

pub use costs::Cost;
pub use examples::{Example, Filled, Hole};
pub use glue::{Course, GlueCell, GlueModel, GluePoint, GlueResults, GlueRow, Invalid};
pub use graph::{Link, Node, Progress, State};
pub use layout::Place;
pub use provenance::{Origin, Provenance, Ran};
pub use sets::{Band, Group, Passing, Role, Spread};
pub use training::{Curve, Log, Training};
pub use weights::{FusedModel, Matrix, Snapshot, SymmetryPoint};

use super::glue_table::Beside;
use super::{Report, Section, StageReport};

/// What there is to see of one or several runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// The names of the runs, joined with commas.
    pub name: String,
    /// In the order in which they were given.
    pub runs: Vec<RunResults>,
    /// Every training of every run, in the order in which they run.
    pub trainings: Vec<Training>,
    /// The trainings by what made them: those that differ only in seeds are together.
    pub sets: Vec<Group>,
    /// What each training and each fusion cost.
    pub costs: Vec<Cost>,
    /// Results on GLUE, if there are any.
    pub glue: Option<GlueResults>,
    /// Fused models, and what their weights have become.
    pub weights: Vec<FusedModel>,
    /// Held-out text with holes, and what the models put into them.
    pub examples: Vec<Example>,
}

/// A run by itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunResults {
    /// Unique among the runs.
    pub name: String,
    /// The stages as a graph.
    pub stages: Vec<Node>,
    /// Its other tables, as in the report as text.
    pub tables: Vec<Section>,
    /// The comparison in words and tables, as in the report as text. Empty without one.
    pub comparison: Vec<Section>,
    /// How many holes of the examples are filled as the text fills them, in words.
    pub holes: Vec<String>,
    /// What is needed to repeat it.
    pub provenance: Provenance,
}

/// How much to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Whether weights are read, for [`Results::weights`].
    pub weights: bool,
}

impl Default for Depth {
    fn default() -> Self {
        Depth { weights: true }
    }
}

/// A run that was read, under a name of its own.
struct ReadRun {
    name: String,
    /// What precedes a stage's name, so that it is unique among several runs.
    prefix: String,
    place: PathBuf,
    report: Report,
}

impl ReadRun {
    fn full_name(&self, stage: &str) -> String {
        // A training by itself is its run's only stage.
        if self.prefix.is_empty() || stage == self.report.name && self.report.file.is_none() {
            return if self.prefix.is_empty() { stage.to_owned() } else { self.name.clone() };
        }
        format!("{}{stage}", self.prefix)
    }

    fn stage(&self, name: &str) -> Option<&StageReport> {
        self.report.stages.iter().find(|stage| stage.entry.name == name)
    }

    fn directory(&self, stage: &StageReport) -> PathBuf {
        match &self.report.file {
            Some(_) => self.place.join(&stage.entry.name),
            None => self.place.clone(),
        }
    }
}

impl Results {
    /// Reads directories as [`Report::of`] does.
    ///
    /// # Errors
    /// A directory that is none of a run, a training or GLUE results, or a damaged file.
    pub fn of(places: &[PathBuf], beside: &Beside, depth: Depth) -> Result<Self> {
        let runs = read(places)?;
        let mut results = Results::default();
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        results.name = names.join(", ");
        for (index, run) in runs.iter().enumerate() {
            results.trainings.extend(training::trainings(index, run)?);
        }
        results.sets = sets::sets(&runs, &mut results.trainings);
        for run in &runs {
            if run.report.stages.is_empty() {
                continue;
            }
            let (tables, comparison, holes) = run.report.sections_by_part();
            results.runs.push(RunResults {
                name: run.name.clone(),
                stages: graph::nodes(run)?,
                tables,
                comparison,
                holes: holes.map(|section| section.notes).unwrap_or_default(),
                provenance: provenance::provenance(run)?,
            });
        }
        results.costs = costs::costs(&runs, &results);
        results.examples = examples::examples(&runs)?;
        if depth.weights {
            results.weights = runs.iter().flat_map(weights::fused).collect();
        }
        results.glue = glue::results(&runs, &results.trainings, &results.sets, beside)?;
        Ok(results)
    }

    /// The set that the others are compared with, if there is a comparison.
    pub fn baseline(&self) -> Option<&Group> {
        self.sets.iter().find(|set| set.role == Role::Baseline)
    }
}

/// The runs, with names that tell them apart.
fn read(places: &[PathBuf]) -> Result<Vec<ReadRun>> {
    let reports = places.iter().map(|place| Report::read(place)).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = reports.iter().map(|report| report.name.clone()).collect();
    let same_names = (1..names.len()).any(|at| names[..at].contains(&names[at]));
    let several = reports.len() > 1;
    let run = |(number, (report, place)): (usize, (Report, &PathBuf))| {
        let name = if same_names { format!("{} ({})", report.name, number + 1) } else { report.name.clone() };
        let prefix = if several { format!("{name}/") } else { String::new() };
        ReadRun { name, prefix, place: place.clone(), report }
    };
    Ok(reports.into_iter().zip(places).enumerate().map(run).collect())
}

/// Where a stage's model is, if it has got one.
fn model_in(directory: &Path) -> Option<PathBuf> {
    let model = directory.join(crate::stage::pretrain::KIND.output);
    model.join("config.json").is_file().then_some(model)
}
