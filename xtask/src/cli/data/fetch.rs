use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use glue_eval::Task;
use pipeline::source::glue::{FetchedGlue, RemoteGlue};

use crate::terminal::Terminal;
use crate::terminal::output::print;

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask data fetch hf:nyu-mll/glue --output GLUE\n",
    "  cargo xtask data fetch https://example.org/glue --output GLUE --tasks cola,rte",
);

/// Download GLUE's files into a folder
///
/// The source is a dataset on the Hugging Face Hub laid out like nyu-mll/glue, or a folder on the web in
/// either layout that `glue` reads. Files appear whole or not at all, and are checked against SHA256SUMS if
/// the server has one. A SHA256SUMS is left in DIR for `data check` and `sha256sum --check`. Interrupted
/// downloads resume where they stopped, and files that already exist are not downloaded again.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// `hf:ORG/NAME[@REVISION]`, or the URL of a folder (`https://…`)
    #[arg(value_name = "SOURCE")]
    source: RemoteGlue,
    /// The folder to write to; other files in it are kept
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Tasks, such as cola,sst2 [default: all eight]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<Task>,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let tasks = if self.tasks.is_empty() { Task::ALL.to_vec() } else { self.tasks };
        let FetchedGlue { files, missing } = self.source.fetch(&tasks, &self.output, &Terminal)?;
        let anew = files.iter().filter(|file| file.anew).count();
        let mut text =
            format!("{} files in {}, {anew} of them fetched\n", files.len(), self.output.display());
        if !missing.is_empty() {
            text += &format!("missing: {}\n", missing.join(", "));
        }
        print(&text)
    }
}
