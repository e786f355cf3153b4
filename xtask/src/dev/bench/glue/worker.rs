use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use fusion_core::checkpoint::Checkpoint;
use pipeline::Compute;
use pipeline::checkpoint::parameter_count;
use t5_model::text::Tokenizer;

use super::protocol::{ANSWER, Answers, Said, Summary};
use super::questions::{DevSets, Sample};
use crate::cli::compute::ComputeArguments;
use crate::dev::bench::memory;
use crate::dev::bench::protocol::{say, serve};

/// Answer as requested by `bench glue` on standard input
#[derive(Args, Debug)]
pub struct Arguments {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    glue: PathBuf,
    #[arg(long)]
    tokenizer: PathBuf,
    #[command(flatten)]
    sample: Sample,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        self.compute.run(|compute| self.serve(compute))
    }

    fn serve(&self, compute: &Compute) -> Result<()> {
        let checkpoint = Checkpoint::open(&self.model)?;
        let mut session = compute.open_checkpoint(&checkpoint)?;
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let sets = DevSets::read(&self.glue, &self.sample)?;
        let questions = sets.questions(&tokenizer, &self.sample)?;
        let batch_size = usize::try_from(self.sample.batch_size)?;
        // Warm-up.
        questions[0].answers(session.as_mut(), batch_size)?;
        serve(parameter_count(&checkpoint)?, ANSWER, |number| {
            let questions = questions.get(number).with_context(|| format!("there is no set {number}"))?;
            let start = Instant::now();
            let answers = questions.answers(session.as_mut(), batch_size)?;
            let seconds = start.elapsed().as_secs_f64();
            Ok(Answers { seconds, answers: answers.into_iter().map(Said::Judged).collect() })
        })?;
        say(&Summary { peak_rss_bytes: memory("self", "VmHWM") })
    }
}
