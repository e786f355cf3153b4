//! Forecasts stages whose inputs need not exist yet.

use std::path::Path;

use anyhow::{Context, Result};
use glue_eval::data::Split;
use t5_model::parameter_table;

use super::reading::{Texts, shared};
use crate::problems::Problems;
use crate::stage::text::Purpose;
use crate::stage::{Forecast, Known, Stage};
use crate::{Warning, Watch};

/// Forecasts stages listed after their inputs, or reports everything that will be refused. `glue` are GLUE's
/// files, if they were given.
pub fn forecasts<'a>(
    stages: impl IntoIterator<Item = &'a Stage>,
    glue: Option<&Path>,
    watch: &'a dyn Watch,
) -> Result<Vec<Forecast>> {
    let (mut known, mut problems) = (Known { name: "", watch, stages: Vec::new() }, Problems::default());
    let mut texts = Texts::default();
    for stage in stages {
        known.name = &stage.name;
        let forecast = forecast(stage, &known, glue, &mut texts);
        let forecast = forecast.with_context(|| format!("stage {:?} will fail", stage.name));
        known.stages.extend(problems.keep(forecast).map(|forecast| (stage.name.as_str(), forecast)));
    }
    problems.result()?;
    Ok(known.stages.into_iter().map(|(_, forecast)| forecast).collect())
}

fn forecast(stage: &Stage, known: &Known<'_>, glue: Option<&Path>, texts: &mut Texts) -> Result<Forecast> {
    let (forecast, mut problems) = (stage.work.forecast(known), Problems::default());
    let mut forecast = problems.keep(forecast).unwrap_or_default();
    for input in stage.work.inputs() {
        let earlier = known.stages.iter().find(|(name, _)| input.stage() == Some(name));
        forecast.trained_on.extend(earlier.into_iter().flat_map(|(_, earlier)| earlier.trained_on.clone()));
    }
    for reading in stage.work.reads() {
        let Some(read) = problems.keep(texts.find(&reading)) else { continue };
        match reading.purpose {
            Purpose::Vocabulary => {}
            Purpose::Training => forecast.trained_on.push(read),
            Purpose::Evaluation => {
                let file = shared(&forecast.trained_on, &read).map(|file| file.name.clone());
                forecast.warnings.extend(file.map(|file| Warning::TrainedOnHeldOut { file }));
            }
        }
    }
    for (task, files) in stage.work.glue_tasks().into_iter().flatten().filter_map(|task| Some((*task, glue?)))
    {
        let labelled = Split::all(task).filter(|split| split.is_labelled());
        labelled.for_each(|split| drop(problems.keep(split.find(task, files).map_err(Into::into))));
    }
    problems.result()?;
    if let Some(model) = &forecast.model {
        forecast.parameters = Some(parameter_table(model)?.parameter_count());
    }
    Ok(forecast)
}
