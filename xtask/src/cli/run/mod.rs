mod plan;
mod slurm;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use fusion_core::atomic::write_own_file;
use pipeline::recipe::Recipe;
use pipeline::report::glue_table::Beside;
use pipeline::report::results::{Depth, Results};
use pipeline::report::{Report, page};
use pipeline::run::{How, PAGE, REPORT, Run};
use pipeline::source::glue::GluePlace;
use t5_model::ComputeChoice;

use self::plan::Plan;
use crate::cli::compute::{GroupArguments, start_threads};
use crate::dev::resources;
use crate::ranks;
use crate::terminal::output::print;
use crate::terminal::{Terminal, interrupt, plot};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask run recipes/quickstart.toml\n",
    "  cargo xtask run recipes/english.toml --set data.text=texts --glue GLUE",
);

/// Run a recipe: a graph of stages that train, fuse, fine-tune and evaluate
///
/// Every stage has a directory in DIR. Finished stages are skipped and interrupted training continues from
/// its newest checkpoint, so the same command resumes a run. At the end, the report is printed and written to
/// DIR/report.md, and as a page with figures to DIR/report.html.
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
    /// Set a variable of the recipe, such as steps=100; short for --set variables.steps=100; can be repeated
    #[arg(long = "var", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Check the recipe and sum up what would run, without running it
    #[arg(long)]
    dry_run: bool,
    /// The same, and list every stage
    #[arg(long)]
    plan: bool,
    /// Replace results that are out of date because the recipe has changed
    #[arg(long)]
    redo: bool,
    /// Run up to N stages side by side that do not need each other
    ///
    /// They share the threads and come to the same results, on tch's CPU to within rounding. With small models, which
    /// leave threads waiting, a run takes less time; it needs the memory of N stages. Stages on one GPU take
    /// turns all the same.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: u16,
    /// Hand every stage to Slurm as a job, which begins once those that it needs have succeeded
    ///
    /// With --dry-run, prints the jobs' scripts. Scripts and logs are in DIR/slurm. The same command again
    /// hands in what has not finished.
    #[arg(long, conflicts_with_all = ["jobs", "plan"])]
    slurm: bool,
    /// An option of these jobs, such as "--gres=gpu:1" or "--time=4:00:00"; can be repeated
    #[arg(long, value_name = "OPTION", requires = "slurm", allow_hyphen_values = true)]
    sbatch: Vec<String>,
    /// What all stages compute on, whatever the recipe says
    #[command(flatten, next_help_heading = "Computing")]
    compute: ComputeChoice,
    #[command(flatten)]
    group: GroupArguments,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        start_threads(None)?;
        let variables = self.variables.iter().map(|variable| format!("variables.{variable}"));
        let sets: Vec<String> = variables.chain(self.sets.iter().cloned()).collect();
        let mut recipe = Recipe::read(&self.recipe, &sets)?;
        recipe.compute_on(&self.compute);
        let output = self.output.clone().unwrap_or_else(|| recipe.default_output());
        let tasks = recipe.stages.iter().filter_map(|stage| stage.work.glue_tasks());
        let tasks = tasks.flatten().copied().collect::<Vec<_>>();
        let glue = self.glue.as_ref().map(|glue| glue.directory(&tasks)).transpose()?;
        let command = resources::command(std::env::args_os().map(|word| word.to_string_lossy().into_owned()));
        let run = Run::new(&recipe, &output, glue.as_deref(), &Terminal).command(&command);
        let selected = run.selected(&self.only)?;
        let plan = Plan::new(&run, &selected)?;
        plan.warn();
        if self.slurm {
            return self.hand_in(&plan, &recipe.name, &output, glue.as_deref());
        }
        if self.dry_run || self.plan {
            plan.warn_of_refusals();
            return print(&plan.text(&recipe.name, &output, self.jobs, self.plan));
        }
        let compute = plan.compute(&self.group)?;
        interrupt::listen()?;
        let jobs = NonZeroUsize::try_from(usize::from(self.jobs))?;
        let executed = run.execute(&selected, &How { compute: &compute, jobs, redo: self.redo });
        GroupArguments::report(&compute, executed)?;
        if ranks::is_first() { report(&output) } else { Ok(()) }
    }
}

impl Arguments {
    /// Hands what is to run to Slurm, or shows what that would be.
    fn hand_in(&self, plan: &Plan<'_>, name: &str, output: &Path, glue: Option<&Path>) -> Result<()> {
        let stages = plan.to_run();
        let jobs = slurm::jobs(self, name, output, glue, &stages)?;
        if self.dry_run {
            let shown = |job: &slurm::Job<'_>| match job.after.as_slice() {
                [] => format!("# {}\n{}\n", job.stage.name, job.script),
                after => format!("# {}, after {}\n{}\n", job.stage.name, after.join(", "), job.script),
            };
            return print(&jobs.iter().map(shown).collect::<String>());
        }
        let numbers = slurm::submit(&jobs, output)?;
        let lines =
            jobs.iter().zip(numbers).map(|(job, number)| format!("{}: job {number}\n", job.stage.name));
        print(&lines.collect::<String>())
    }
}

fn report(output: &Path) -> Result<()> {
    let (places, beside) = ([output.to_owned()], Beside::default());
    let report = Report::of(&places, &beside)?;
    write_own_file(output, REPORT, report.markdown().as_bytes())?;
    let results = Results::of(&places, &beside, Depth::default())?;
    write_own_file(output, PAGE, page::html(&results)?.as_bytes())?;
    eprintln!("the report is in {}, with figures in {PAGE} beside it", output.join(REPORT).display());
    print(&report.text())?;
    plot::show(&results)
}
