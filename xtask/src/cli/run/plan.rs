//! What a run would do, before it does it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use pipeline::numbers::{bytes, count, flop, short, thousands};
use pipeline::problems::Problems;
use pipeline::report::table::Table;
use pipeline::run::{Run, State};
use pipeline::stage::{Forecast, Input, KINDS, Stage};
use pipeline::{Compute, NotBuilt, Warning};
use t5_model::{Computation, backend};

use crate::cli::compute::{DEFAULT_BACKEND, DEFAULT_DEVICE, GroupArguments};
use crate::dev::{build, feature};
use crate::terminal::{Asked, Subject, warn_of, with_advice};

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
    /// Why it cannot compute there.
    refused: Option<t5_model::Error>,
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
        self.warn_of_all(|planned| {
            planned.warnings.iter().map(|warning| with_advice(warning, Asked::ByRecipe)).collect()
        });
    }

    /// Says what will be refused here. The plan may be for another machine.
    pub fn warn_of_refusals(&self) {
        self.warn_of_all(|Planned { forecast, refused, .. }| {
            let refused = refused.as_ref().map(ToString::to_string);
            let reasons = forecast.missing.iter().cloned().chain(refused);
            reasons.map(|reason| format!("it cannot run here: {reason}")).collect()
        });
    }

    /// Gives the same warning of several stages once.
    fn warn_of_all(&self, warnings: impl Fn(&Planned<'_>) -> Vec<String>) {
        let mut all: Vec<(String, Vec<Subject<'_>>)> = vec![];
        for planned in self.running() {
            let subject = (planned.stage.name.as_str(), fellow(planned.stage));
            for warning in warnings(planned) {
                match all.iter_mut().find(|(known, _)| *known == warning) {
                    Some((_, subjects)) => subjects.push(subject),
                    None => all.push((warning, vec![subject])),
                }
            }
        }
        all.iter().for_each(|(warning, subjects)| warn_of(subjects, warning));
    }

    /// The stages that would run, each after those that it needs.
    pub fn to_run(&self) -> Vec<&'a Stage> {
        self.running().map(|planned| planned.stage).collect()
    }

    fn running(&self) -> impl Iterator<Item = &Planned<'a>> {
        self.stages.iter().filter(|planned| planned.will_run())
    }

    /// What stages compute on if they do not say so. Fails if any stage will not find what it computes on.
    pub fn compute(self, group: &GroupArguments) -> Result<Compute> {
        let standard = Place { backend: DEFAULT_BACKEND, device: DEFAULT_DEVICE };
        let places = self.places();
        let features: BTreeSet<&str> =
            places.iter().filter_map(|place| Some(place.missing()?.name)).collect();
        if !features.is_empty() {
            return Err(NotBuilt { features: features.into_iter().collect() }.into());
        }
        // Where the standard backend is left out, no stage needs it.
        let place = if standard.missing().is_none() { Some(&standard) } else { places.first() };
        let place = *place.unwrap_or(&standard);
        let mut problems = Problems::default();
        for Planned { stage, forecast, refused, .. } in
            self.stages.into_iter().filter(|planned| planned.will_run())
        {
            forecast.refuse_missing(&stage.name, &mut problems);
            let error =
                refused.map_or(Ok(()), Err).with_context(|| format!("stage {:?} will fail", stage.name));
            problems.keep(error);
        }
        problems.result()?;
        let backend = build::backend(place.backend, Some(place.device))?;
        group.compute(backend, Computation::on(place.device))
    }

    /// Where the stages that run compute.
    fn places(&self) -> BTreeSet<Place<'a>> {
        self.running().filter_map(|planned| planned.compute).collect()
    }

    /// The plan in five lines, and every stage if asked for.
    pub fn text(&self, name: &str, output: &Path, jobs: u16, in_full: bool) -> String {
        let sets = self.stages.iter().filter_map(|planned| planned.stage.seed_set.as_ref());
        let sets = sets.map(|set| set.number).max();
        let sets = sets.map_or(String::new(), |sets| format!(" with {sets} sets of seeds"));
        let stages = number(self.stages.len(), "stage");
        let mut text = format!("{name}: {stages}{sets} in {}\n", output.display());
        text += &format!("  to do     {}\n", self.to_do());
        text += &format!("  training  {}\n", self.training());
        text += &format!("  memory    {}\n", self.memory(jobs.into()));
        text += &self.stated_models();
        text += &self.stages.iter().filter_map(Planned::follows).collect::<String>();
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
        let of_kind = |name: &str| self.running().filter(|planned| planned.stage.kind.name == name).count();
        let kinds = KINDS.iter().map(|kind| (of_kind(kind.name), kind.name));
        let others = [
            (is(|state| matches!(state, State::Begun)), "to resume"),
            (is(|state| matches!(state, State::OutOfDate(_))), "out of date (--redo replaces)"),
            (is(|state| matches!(state, State::Finished(_))), "finished"),
            (is(|state| matches!(state, State::WithoutFiles)), "left out (no --glue)"),
        ];
        let all = kinds.chain(others).filter(|(stages, _)| *stages > 0);
        let all: Vec<String> = all.map(|(stages, what)| format!("{stages} {what}")).collect();
        all.join(", ")
    }

    fn training(&self) -> String {
        let sum = |of: fn(&Forecast) -> Option<f64>| {
            self.running().filter_map(|planned| of(&planned.forecast)).reduce(|sum, own| sum + own)
        };
        let largest = self.stages.iter().filter_map(|planned| planned.forecast.parameters).max();
        let largest =
            largest.map(|largest| format!("; the largest model has {} parameters", thousands(largest)));
        match (sum(|forecast| forecast.tokens), sum(|forecast| forecast.flops)) {
            (Some(tokens), Some(flops)) => {
                format!("{} tokens, {} FLOP{}", count(tokens), count(flops), largest.unwrap_or_default())
            }
            _ => "none, or not known yet".to_owned(),
        }
    }

    /// What the largest stages take that may run side by side.
    fn memory(&self, jobs: usize) -> String {
        let each = self.running().filter_map(|planned| Some((planned.memory?, planned.stage.name.as_str())));
        let mut each: Vec<(f64, &str)> = each.collect();
        each.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        each.truncate(jobs);
        let sum = bytes(each.iter().map(|(memory, _)| memory).sum());
        let known = match each.as_slice() {
            [] => None,
            [(_, name)] => Some(format!("up to {sum} ({name})")),
            several => Some(format!("up to {sum} ({} stages at a time)", several.len())),
        };
        let places = self.places();
        let missing = places.iter().filter(|place| place.missing().is_some());
        let missing = missing
            .map(|place| format!("not known on {}: {} is not compiled in", place.device, place.backend));
        let all: Vec<String> = known.into_iter().chain(missing).collect();
        if all.is_empty() { "not estimated".to_owned() } else { all.join("; ") }
    }

    /// The models of which the recipe says how many parameters they have.
    fn stated_models(&self) -> String {
        let mut models: Vec<String> = Vec::new();
        for Planned { forecast, .. } in &self.stages {
            if let Some((said, found)) = forecast.stated_parameters.zip(forecast.parameters) {
                let model = format!("{} ({})", thousands(found), short(said));
                models.extend(Some(model).filter(|model| !models.contains(model)));
            }
        }
        match models.as_slice() {
            [] => String::new(),
            models => format!("  models    parameters (as stated): {}\n", models.join(", ")),
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new([
            "stage",
            "kind",
            "state",
            "parameters",
            "steps",
            "tokens",
            "FLOP",
            "memory",
            "published",
            "on",
            "from",
        ]);
        let known = |number: Option<f64>| number.map_or(String::new(), count);
        for Planned { stage, forecast, state, compute, memory, .. } in &self.stages {
            let inputs: Vec<String> = stage.work.inputs().into_iter().map(named).collect();
            table.rows.push(vec![
                stage.name.clone(),
                stage.kind.name.to_owned(),
                describe(state).to_owned(),
                forecast.parameters.map_or(String::new(), thousands),
                forecast.steps.map_or(String::new(), |steps| steps.to_string()),
                known(forecast.tokens),
                known(forecast.flops),
                memory.map_or(String::new(), bytes),
                published(stage, forecast),
                compute.map_or(String::new(), |Place { backend, device }| format!("{backend} {device}")),
                inputs.join(" "),
            ]);
        }
        table.drop_empty("memory");
        table.drop_empty("published");
        table
    }
}

impl<'a> Planned<'a> {
    fn new(stage: &'a Stage, forecast: Forecast, state: State) -> Result<Self> {
        let (mut memory, mut refused, mut warnings) = (None, None, forecast.warnings.clone());
        let choice = &stage.compute;
        let compute = stage.work.computes().then(|| Place {
            backend: choice.backend.as_deref().unwrap_or(DEFAULT_BACKEND),
            device: choice.device.as_deref().unwrap_or(DEFAULT_DEVICE),
        });
        let needs = !matches!(state, State::Finished(_) | State::WithoutFiles);
        // A missing backend is not built just for this.
        if let Some(place) = compute.filter(|place| needs && place.missing().is_none()) {
            let backend = backend(place.backend)?;
            let how = Computation {
                device: place.device.to_owned(),
                precision: choice.precision.unwrap_or_default(),
                checkpoint_activations: choice.checkpoint_activations.unwrap_or_default(),
            };
            if let Some(training) = &forecast.training {
                let needed = training.memory(backend, &how);
                memory = needed.as_ref().map(|needed| needed.peak);
                warnings.extend(needed.iter().flat_map(|needed| Warning::of_memory(needed, &how.device)));
            }
            // A plan for another machine is of use here.
            refused = Compute::new(backend, how).err();
        }
        Ok(Planned { stage, forecast, state, compute, memory, refused, warnings })
    }

    fn will_run(&self) -> bool {
        matches!(self.state, State::New | State::Begun | State::OutOfDate(_))
    }

    /// The number of steps that follows from what stages cost.
    fn follows(&self) -> Option<String> {
        let budget = self.stage.work.budget()?;
        let Forecast { steps, computation, .. } = &self.forecast;
        let (steps, total) = ((*steps)?, computation.as_ref()?.total());
        let name = &self.stage.name;
        Some(format!("{name}: {steps} steps, {} with all training behind it: {budget}\n", flop(total)))
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

/// The stage that a stage of another set of seeds is the same as, but for its seeds.
fn fellow(stage: &Stage) -> Option<&str> {
    stage.seed_set.as_ref().map(|set| set.stage.as_str())
}

/// An input's name, cut on the left: the end of a path tells more than its beginning.
fn named(input: &Input) -> String {
    let name = input.to_string();
    let excess = name.chars().count().saturating_sub(WIDEST);
    match excess {
        0 => name,
        excess => format!("…{}", name.chars().skip(excess + 1).collect::<String>()),
    }
}

/// What is published of a stage's model.
fn published(stage: &Stage, forecast: &Forecast) -> String {
    let parameters = forecast.stated_parameters.map(short);
    let figures = stage.published.iter().flat_map(|published| {
        let figures = published.figures().map(|(figure, value)| format!("{} {value}", figure.name()));
        figures.chain([published.source.clone()])
    });
    parameters.into_iter().chain(figures).collect::<Vec<_>>().join("; ")
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
