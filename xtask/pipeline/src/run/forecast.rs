//! Forecasts stages whose inputs need not exist yet.

use anyhow::{Context, Result};
use t5_model::parameter_table;

use crate::Watch;
use crate::problems::Problems;
use crate::stage::{Forecast, Known, Stage};

/// Forecasts stages listed after their inputs, or reports everything that will be refused.
pub fn forecasts<'a>(
    stages: impl IntoIterator<Item = &'a Stage>,
    watch: &'a dyn Watch,
) -> Result<Vec<Forecast>> {
    let (mut known, mut problems) = (Known { watch, stages: Vec::new() }, Problems::default());
    for stage in stages {
        let forecast = forecast(stage, &known);
        let forecast = forecast.with_context(|| format!("stage {:?} will fail", stage.name));
        known.stages.extend(problems.keep(forecast).map(|forecast| (stage.name.as_str(), forecast)));
    }
    problems.result()?;
    Ok(known.stages.into_iter().map(|(_, forecast)| forecast).collect())
}

fn forecast(stage: &Stage, known: &Known<'_>) -> Result<Forecast> {
    let mut forecast = stage.work.forecast(known)?;
    if let Some(model) = &forecast.model {
        forecast.parameters = Some(parameter_table(model)?.parameter_count());
    }
    Ok(forecast)
}
