use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use fusion_core::atomic::write_own_file;
use pipeline::numbers::{bytes, count, thousands};
use pipeline::recipe::Recipe;
use pipeline::report::Report;
use pipeline::report::glue_table::Beside;
use pipeline::report::table::Table;
use pipeline::run::{REPORT, Run, State, forecasts};
use pipeline::source::glue::GluePlace;
use pipeline::stage::{Forecast, Stage};
use t5_model::backend;

use crate::cli::compute::ComputeArguments;
use crate::dev::feature;
use crate::terminal::output::print;
use crate::terminal::{Asked, Terminal, interrupt, with_advice};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask run recipes/quickstart.toml\n",
    "  cargo xtask run recipes/english.toml --set data.text=texts --glue GLUE",
);

/// Run a recipe: a graph of stages that train, fuse, fine-tune and evaluate
///
/// Every stage has a directory in DIR. Finished stages are skipped and interrupted training continues from
/// its newest checkpoint, so the same command resumes a run. At the end, the report is printed and written to
/// DIR/report.md.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The recipe, a TOML file
    recipe: PathBuf,
    /// GLUE's files, as for the command `glue`; without them, stages that fine-tune on GLUE are skipped
    #[arg(long, value_name = "DIR")]
    glue: Option<GluePlace>,
    /// Where to write [default: runs/<the recipe's name>]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Run only this stage and the stages it needs; can be repeated
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Override a key of the recipe, such as pretraining.steps=100; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Check the recipe and show what would run, without running it
    #[arg(long)]
    dry_run: bool,
    /// Replace results that are out of date because the recipe has changed
    #[arg(long)]
    redo: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let recipe = Recipe::read(&self.recipe, &self.sets)?;
        let output = self.output.clone().unwrap_or_else(|| recipe.default_output());
        let tasks = recipe.stages.iter().filter_map(|stage| stage.work.glue_tasks());
        let tasks = tasks.flatten().copied().collect::<Vec<_>>();
        let glue = self.glue.as_ref().map(|glue| glue.directory(&tasks)).transpose()?;
        let run = Run::new(&recipe, &output, glue.as_deref(), &Terminal);
        let selected = run.selected(&self.only)?;
        let forecasts = forecasts(selected.iter().copied(), &Terminal)?;
        if self.dry_run {
            return dry_run(&run, selected.into_iter().zip(forecasts), &self.compute);
        }
        let compute = self.compute.start()?;
        interrupt::listen()?;
        run.execute(&selected, self.redo, &compute)?;
        report(&output)
    }
}

/// What would run, and what it would produce and need.
fn dry_run<'a>(
    run: &Run<'_>,
    selected: impl Iterator<Item = (&'a Stage, Forecast)>,
    compute: &ComputeArguments,
) -> Result<()> {
    let mut table = Table::new(["stage", "kind", "state", "parameters", "tokens", "FLOP", "memory", "from"]);
    let mut notes = String::new();
    let ComputeArguments { backend: name, how, .. } = compute;
    let known = |number: Option<f64>| number.map_or(String::new(), count);
    for (stage, forecast) in selected {
        let state = run.state(stage)?;
        // A missing backend is not built just for this.
        let memory = backend(name).ok().zip(forecast.training.as_ref());
        let memory = memory.and_then(|(backend, training)| Some((training, training.memory(backend, how)?)));
        let inputs: Vec<String> = stage.work.inputs().iter().map(ToString::to_string).collect();
        table.rows.push(vec![
            stage.name.clone(),
            stage.kind.name.to_owned(),
            describe(&state).to_owned(),
            forecast.parameters.map_or(String::new(), thousands),
            known(forecast.tokens),
            known(forecast.flops),
            memory.as_ref().map_or(String::new(), |(_, memory)| bytes(memory.peak)),
            inputs.join(" "),
        ]);
        let changes = if let State::OutOfDate(changes) = state { changes } else { Vec::new() };
        let changes = changes.iter().map(|change| format!("{}: {change}\n", stage.name));
        let memory = memory.and_then(|(training, memory)| training.warning(&memory, &how.device));
        let warnings = forecast.warnings.iter().chain(&memory);
        let warnings = warnings
            .map(|warning| format!("{}: warning: {}\n", stage.name, with_advice(warning, Asked::ByRecipe)));
        notes.extend(changes.chain(warnings));
    }
    table.drop_empty("memory");
    if feature::missing_for(name, Some(&how.device)).is_some() {
        notes += &format!("the memory on {} is not known: {name} is not compiled in\n", how.device);
    }
    print(&format!("{}{}{notes}", table.text(), if notes.is_empty() { "" } else { "\n" }))
}

fn describe(state: &State) -> &'static str {
    match state {
        State::Finished => "finished",
        State::OutOfDate(_) => "out of date",
        State::Begun => "resumes",
        State::New => "runs",
        State::WithoutFiles => "skipped (no --glue)",
    }
}

fn report(output: &Path) -> Result<()> {
    let report = Report::of(&[output.to_owned()], &Beside::default())?;
    write_own_file(output, REPORT, report.markdown().as_bytes())?;
    eprintln!("the report is in {}", output.join(REPORT).display());
    print(&report.text())
}
