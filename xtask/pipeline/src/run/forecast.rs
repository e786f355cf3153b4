//! Forecasts stages whose inputs need not exist yet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use glue_eval::data::Split;
use t5_model::parameter_table;

use super::reading::{Texts, shared};
use crate::problems::{Problems, causes};
use crate::stage::text::Purpose;
use crate::stage::{Budget, Forecast, Input, Known, Stage};
use crate::{Warning, Watch};

/// What is there when stages are forecast.
pub struct There<'a> {
    /// GLUE's files, if they were given.
    pub glue: Option<&'a Path>,
    /// The result of a stage that has finished.
    pub result: &'a dyn Fn(&Stage) -> Result<Option<PathBuf>>,
    /// Follows the fetching of what is not on this machine.
    pub watch: &'a dyn Watch,
}

/// Forecasts stages listed after those that they name, or reports everything that will be refused. What is not here,
/// but may be elsewhere, is no reason to: text and models on the Hub.
pub fn forecasts<'a>(
    stages: impl IntoIterator<Item = &'a Stage>,
    There { glue, result, watch }: &There<'a>,
) -> Result<Vec<Forecast>> {
    let mut known = Known::nothing(*watch);
    let mut problems = Problems::default();
    let (mut texts, mut failing) = (Texts::default(), BTreeSet::new());
    for stage in stages {
        known.name = &stage.name;
        let mut own = Problems::default();
        known.result = own.keep(result(stage)).flatten();
        let follows = named(stage).any(|name| failing.contains(name));
        let unreachable = known.unreachable.borrow().clone();
        // What comes of a stage that fails is not known.
        let forecast = if follows { None } else { own.keep(complete(stage, &known)) };
        if forecast.is_none() {
            failing.insert(stage.name.as_str());
        }
        let mut forecast = forecast.unwrap_or_default();
        let new = known.unreachable.borrow().clone().into_iter();
        forecast.missing.extend(new.filter(|(name, _)| !unreachable.contains_key(name)).map(|(_, why)| why));
        read(&mut forecast, stage, &known, &mut texts);
        find_glue(stage, *glue, &mut own);
        problems.keep(own.result().with_context(|| format!("stage {:?} will fail", stage.name)));
        known.stages.push((&stage.name, forecast));
    }
    if !problems.is_empty() {
        for (name, forecast) in &known.stages {
            forecast.refuse_missing(name, &mut problems);
        }
    }
    problems.result()?;
    Ok(known.stages.into_iter().map(|(_, forecast)| forecast).collect())
}

/// The number of steps of a stage whose number follows from what stages cost. `stages` are those that it needs to
/// be known, and itself, each after those that it names.
pub fn steps<'a>(
    name: &str,
    stages: impl IntoIterator<Item = &'a Stage>,
    There { result, watch, .. }: &There<'a>,
) -> Result<u64> {
    let mut known = Known::nothing(*watch);
    for stage in stages {
        known.name = &stage.name;
        known.result = result(stage)?;
        let forecast = complete(stage, &known);
        let forecast = forecast.with_context(|| format!("stage {:?} will fail", stage.name))?;
        known.stages.push((&stage.name, forecast));
    }
    let own = known.stages.iter().find(|(known, _)| *known == name);
    own.and_then(|(_, forecast)| forecast.steps).with_context(|| {
        format!("stage {name:?} will fail: its number of steps does not follow from what is known")
    })
}

/// The stages that a stage names.
pub fn named(stage: &Stage) -> impl Iterator<Item = &str> {
    let budget = stage.work.budget().and_then(Budget::stage);
    stage.work.inputs().into_iter().filter_map(Input::stage).chain(budget)
}

fn complete(stage: &Stage, known: &Known<'_>) -> Result<Forecast> {
    let reference = stage.work.budget().and_then(Budget::input);
    stage.work.inputs().into_iter().chain(reference).try_for_each(|input| known.check_reached(input))?;
    let mut forecast = stage.work.forecast(known)?;
    if let Some(model) = &forecast.model {
        forecast.parameters = Some(parameter_table(model)?.parameter_count());
    }
    Ok(forecast)
}

/// Finds the text that a stage reads, and looks whether its model is evaluated on what it was trained on.
fn read(forecast: &mut Forecast, stage: &Stage, known: &Known<'_>, texts: &mut Texts) {
    for input in stage.work.inputs() {
        let earlier = known.stages.iter().find(|(name, _)| input.stage() == Some(name));
        for read in earlier.into_iter().flat_map(|(_, earlier)| &earlier.trained_on) {
            // Two parents may have one ancestor.
            if !forecast.trained_on.contains(read) {
                forecast.trained_on.push(read.clone());
            }
        }
    }
    for reading in stage.work.reads() {
        let read = match texts.find(&reading) {
            Ok(Some(read)) => read,
            Ok(None) => continue,
            Err(error) => {
                forecast.missing.push(causes(&error));
                continue;
            }
        };
        match reading.purpose {
            Purpose::Vocabulary => {}
            Purpose::Training => forecast.trained_on.push(read),
            Purpose::Evaluation => {
                let file = shared(&forecast.trained_on, &read).map(|file| file.name.clone());
                forecast.warnings.extend(file.map(|file| Warning::TrainedOnHeldOut { file }));
            }
        }
    }
}

fn find_glue(stage: &Stage, glue: Option<&Path>, problems: &mut Problems) {
    let Some((tasks, files)) = stage.work.glue_tasks().zip(glue) else { return };
    for task in tasks.iter().copied() {
        let labelled = Split::all(task).filter(|split| split.is_labelled());
        labelled.for_each(|split| drop(problems.keep(split.find(task, files).map_err(Into::into))));
    }
}
