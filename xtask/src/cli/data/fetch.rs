use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use glue_eval::Task;
use glue_eval::data::Split;
use pipeline::source::glue::{self, Address, Checksums, Fetched, Website};
use pipeline::source::hub::HubName;

use crate::terminal::Terminal;
use crate::terminal::output::print;

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask data fetch hf:nyu-mll/glue --output GLUE\n",
    "  cargo xtask data fetch https://example.org/glue --output GLUE --tasks cola,rte",
);

/// Fetch GLUE's files into a folder
///
/// From a dataset on the Hugging Face Hub that is laid out as nyu-mll/glue, or from a folder on the web in either of the
/// layouts that `glue` reads. Files appear whole or not at all and are checked against SHA256SUMS if the server has one;
/// one is left in the folder, which `data check` and `sha256sum --check` read. What was interrupted or broken off goes on where
/// it stopped, and files that are there are not fetched again.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// `hf:ORG/NAME[@REVISION]` or the address of a folder, `https://…`
    #[arg(value_name = "SOURCE")]
    source: Source,
    /// The folder; what else is in it stays
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Tasks, such as cola,sst2 [default: all eight]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<Task>,
}

#[derive(Clone, Debug)]
enum Source {
    Hub(HubName),
    Web(Address),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(HubName::PREFIX) {
            Some(name) => Ok(Source::Hub(name.parse()?)),
            None if text.contains("://") => Ok(Source::Web(text.parse()?)),
            None => Err(format!(
                "{text:?} is neither of the form hf:ORG/NAME[@REVISION] nor an address, https://…"
            )),
        }
    }
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let tasks = if self.tasks.is_empty() { Task::ALL.to_vec() } else { self.tasks.clone() };
        fs::create_dir_all(&self.output)
            .with_context(|| format!("cannot create {}", self.output.display()))?;
        let known = Checksums::read(&self.output)?.unwrap_or_default();
        let mut files = Vec::new();
        let mut missing = Vec::new();
        let mut add = |task, split, fetched: Vec<Fetched>| {
            if fetched.is_empty() {
                missing.push(format!("{task} {split}"));
            }
            files.extend(fetched);
        };
        match &self.source {
            Source::Hub(name) => {
                let cache = glue::fetch(name, &tasks)?;
                for (task, split) in splits(&tasks) {
                    add(task, split, glue::copy(task, split, &cache, &self.output)?);
                }
            }
            Source::Web(address) => {
                let website = Website::open(address, &Terminal)?;
                for (task, split) in splits(&tasks) {
                    add(task, split, website.fetch(task, split, &self.output, &known)?);
                }
            }
        }
        let anew = files.iter().filter(|file| file.anew).count();
        let mut text =
            format!("{} files in {}, {anew} of them fetched\n", files.len(), self.output.display());
        if !missing.is_empty() {
            text += &format!("not there: {}\n", missing.join(", "));
        }
        let mut sums: BTreeMap<String, String> = known.0;
        sums.extend(files.into_iter().map(|file| (file.name, file.hash)));
        Checksums(sums).write(&self.output)?;
        print(&text)
    }
}

fn splits(tasks: &[Task]) -> impl Iterator<Item = (Task, Split)> {
    tasks.iter().flat_map(|&task| Split::all(task).map(move |split| (task, split)))
}
