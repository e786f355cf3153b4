//! What a run would do, before it does it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use pipeline::numbers::{bytes, count, thousands};
use pipeline::report::table::Table;
use pipeline::run::{Run, State};
use pipeline::stage::{Forecast, Input, KINDS, Stage};
use pipeline::{Compute, NotBuilt, Warning};
use t5_model::{Computation, backend};

use crate::cli::compute::{DEFAULT_BACKEND, DEFAULT_DEVICE};
use crate::dev::feature;
use crate::terminal::{Asked, with_advice};

/// The widest cell of a plan's table, in characters.
const WIDEST: usize = 40;

/// What a run would do.
pub struct Plan<'a> {
    stages: Vec<Planned<'a>>,
}

struct Planned<'a> {
    stage: &'a Stage,
    forecast: Forecast,
    state: State,
    /// Where it computes, if it does.
    compute: Option<Place<'a>>,
    /// Bytes that training takes, where that can be estimated.
    memory: Option<f64>,
    warnings: Vec<Warning>,
}

/// Where a stage computes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place<'a> {
    backend: &'a str,
    device: &'a str,
}

impl<'a> Plan<'a> {
    /// Looks ahead. Fails with everything that will be refused.
    pub fn new(run: &Run<'_>, selected: &[&'a Stage]) -> Result<Self> {
        let forecasts = run.forecasts(selected)?;
        let mut stages = Vec::new();
        for (stage, forecast) in selected.iter().copied().zip(forecasts) {
            stages.push(Planned::new(stage, forecast, run.state(stage)?)?);
        }
        Ok(Plan { stages })
    }

    /// Says what might not be as the user wants it.
    pub fn warn(&self) {
        for Planned { stage, warnings, .. } in self.stages.iter().filter(|planned| planned.will_run()) {
            for warning in warnings {
                eprintln!("{}: warning: {}", stage.name, with_advice(warning, Asked::ByRecipe));
            }
        }
    }

    /// What stages compute on if they do not say so. Every backend that is named must be built.
    pub fn compute(&self) -> Result<Compute> {
        let running = self.stages.iter().filter(|planned| planned.will_run());
        let mut places: BTreeSet<Place<'_>> = running.filter_map(|planned| planned.compute).collect();
        if places.is_empty() {
            places.insert(Place { backend: DEFAULT_BACKEND, device: DEFAULT_DEVICE });
        }
        let features: BTreeSet<&str> =
            places.iter().filter_map(|place| Some(place.missing()?.name)).collect();
        if !features.is_empty() {
            return Err(NotBuilt { features: features.into_iter().collect() }.into());
        }
        let standard = Place { backend: DEFAULT_BACKEND, device: DEFAULT_DEVICE };
        let first = if standard.missing().is_none() { Some(&standard) } else { places.first() };
        let Place { backend: name, device } = *first.context("there is nothing to compute on")?;
        Ok(Compute::new(backend(name)?, Computation::on(device))?)
    }

    /// The plan in five lines, and every stage if asked for.
    pub fn text(&self, name: &str, output: &Path, in_full: bool) -> String {
        let mut text = format!("{name}: {} in {}\n", number(self.stages.len(), "stage"), output.display());
        text += &format!("  to do     {}\n", self.to_do());
        text += &format!("  training  {}\n", self.training());
        text += &format!("  memory    {}\n", self.memory());
        let changes: Vec<String> = self.stages.iter().flat_map(Planned::changes).collect();
        text += &changes.concat();
        match in_full {
            true => text += &format!("\n{}", self.table().text()),
            false => text += "--plan lists every stage\n",
        }
        text
    }

    fn to_do(&self) -> String {
        let is =
            |wanted: fn(&State) -> bool| self.stages.iter().filter(|planned| wanted(&planned.state)).count();
        let of_kind = |name: &str| {
            let running = self.stages.iter().filter(|planned| planned.will_run());
            running.filter(|planned| planned.stage.kind.name == name).count()
        };
        let kinds =
            KINDS.iter().map(|kind| (of_kind(kind.name), kind.name)).filter(|(stages, _)| *stages > 0);
        let kinds: Vec<String> = kinds.map(|(stages, name)| format!("{stages} {name}")).collect();
        let others = [
            (is(|state| matches!(state, State::Begun)), "of these resume"),
            (is(|state| matches!(state, State::OutOfDate(_))), "of these are out of date (--redo)"),
            (is(|state| matches!(state, State::Finished(_))), "finished"),
            (is(|state| matches!(state, State::WithoutFiles)), "left out (no --glue)"),
        ];
        let others = others.iter().filter(|(stages, _)| *stages > 0);
        let others = others.map(|(stages, what)| format!("{stages} {what}"));
        let all: Vec<String> = kinds.into_iter().chain(others).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    }

    fn training(&self) -> String {
        let running =
            || self.stages.iter().filter(|planned| planned.will_run()).map(|planned| &planned.forecast);
        let sum = |of: fn(&Forecast) -> Option<f64>| running().filter_map(of).sum::<f64>();
        let (tokens, flops) = (sum(|forecast| forecast.tokens), sum(|forecast| forecast.flops));
        let largest = self.stages.iter().filter_map(|planned| planned.forecast.parameters).max();
        let largest =
            largest.map(|largest| format!("; the largest model has {} parameters", thousands(largest)));
        format!("{} tokens, {} FLOP{}", count(tokens), count(flops), largest.unwrap_or_default())
    }

    fn memory(&self) -> String {
        let running = || self.stages.iter().filter(|planned| planned.will_run());
        let most = running().filter_map(|planned| Some((planned.memory?, planned)));
        let most = most.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let places: BTreeSet<Place<'_>> = running().filter_map(|planned| planned.compute).collect();
        let missing = places.iter().filter(|place| place.missing().is_some());
        let missing: Vec<String> = missing
            .map(|place| format!("not known on {}: {} is not compiled in", place.device, place.backend))
            .collect();
        let known = most.map(|(most, planned)| format!("up to {} ({})", bytes(most), planned.stage.name));
        let all: Vec<String> = known.into_iter().chain(missing).collect();
        if all.is_empty() { "not known".to_owned() } else { all.join("; ") }
    }

    fn table(&self) -> Table {
        let mut table =
            Table::new(["stage", "kind", "state", "parameters", "tokens", "FLOP", "memory", "on", "from"]);
        let known = |number: Option<f64>| number.map_or(String::new(), count);
        for Planned { stage, forecast, state, compute, memory, .. } in &self.stages {
            let inputs: Vec<String> = stage.work.inputs().into_iter().map(short).collect();
            table.rows.push(vec![
                stage.name.clone(),
                stage.kind.name.to_owned(),
                describe(state).to_owned(),
                forecast.parameters.map_or(String::new(), thousands),
                known(forecast.tokens),
                known(forecast.flops),
                memory.map_or(String::new(), bytes),
                compute.map_or(String::new(), |Place { backend, device }| format!("{backend} {device}")),
                inputs.join(" "),
            ]);
        }
        table.drop_empty("memory");
        table
    }
}

impl<'a> Planned<'a> {
    fn new(stage: &'a Stage, forecast: Forecast, state: State) -> Result<Self> {
        let (mut memory, mut warnings) = (None, forecast.warnings.clone());
        let choice = &stage.compute;
        let compute = stage.work.computes().then(|| Place {
            backend: choice.backend.as_deref().unwrap_or(DEFAULT_BACKEND),
            device: choice.device.as_deref().unwrap_or(DEFAULT_DEVICE),
        });
        let needs = !matches!(state, State::Finished(_) | State::WithoutFiles);
        // A missing backend is not built just for this.
        if let Some(place) = compute.filter(|place| needs && place.missing().is_none()) {
            let place = Compute::new(backend(place.backend)?, Computation::on(place.device));
            let place = place.and_then(|place| place.chosen(choice));
            let place = place.with_context(|| format!("stage {:?} will fail", stage.name))?;
            if let Some(training) = &forecast.training {
                let needed = training.memory(place.backend(), place.how());
                memory = needed.as_ref().map(|needed| needed.peak);
                warnings.extend(needed.and_then(|needed| training.warning(&needed, &place.how().device)));
            }
        }
        Ok(Planned { stage, forecast, state, compute, memory, warnings })
    }

    fn will_run(&self) -> bool {
        matches!(self.state, State::New | State::Begun | State::OutOfDate(_))
    }

    /// How it differs from what is there.
    fn changes(&self) -> Vec<String> {
        let name = &self.stage.name;
        match &self.state {
            State::OutOfDate(changes) => changes.iter().map(|change| format!("{name}: {change}\n")).collect(),
            State::Finished(measured) => {
                let measured = measured.iter();
                measured
                    .map(|change| format!("{name}: finished with other evaluations: {change}\n"))
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Place<'_> {
    /// The feature that this program lacks for it.
    fn missing(&self) -> Option<&'static feature::Feature> {
        feature::missing_for(self.backend, Some(self.device))
    }
}

/// An input's name, cut on the left: the end of a path tells more than its beginning.
fn short(input: &Input) -> String {
    let name = input.to_string();
    let excess = name.chars().count().saturating_sub(WIDEST);
    match excess {
        0 => name,
        excess => format!("…{}", name.chars().skip(excess + 1).collect::<String>()),
    }
}

fn number(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn describe(state: &State) -> &'static str {
    match state {
        State::Finished(_) => "finished",
        State::OutOfDate(_) => "out of date",
        State::Begun => "resumes",
        State::New => "runs",
        State::WithoutFiles => "skipped (no --glue)",
    }
}
