use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use fusion_core::checkpoint::Checkpoint;
use glue_eval::Questions;
use pipeline::Stoppable;
use pipeline::checkpoint::parameter_count;
use serde_json::json;

use self::model::Model;
use self::protocol::{ANSWER, Answers, Summary};
use self::questions::{DevSets, Sample};
use self::report::Report;
use super::contestant::Contestant;
use super::field::{Field, require};
use super::report::conclude;
use super::turns::Measurement;
use crate::cli::compute::start_threads;
use crate::terminal::{Terminal, interrupt};

mod model;
mod protocol;
mod questions;
mod report;
pub mod worker;

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask bench glue --model tuned --glue GLUE\n",
    "  cargo xtask bench glue --model t5-small --tokenizer spiece.model --glue GLUE --only 'burn cpu' --only transformers",
);

/// The order in which transformers takes prompts: longest first, as in an evaluation, or as given.
const ORDERS: [&str; 2] = ["", "unsorted"];

/// Answer GLUE's development sets with every backend, with transformers' `generate` and with CTranslate2, in turns
///
/// Each contestant runs in its own process: every compiled-in backend on each of its devices in each
/// precision; transformers if a Python with it is found, once with prompts sorted by length and once in their
/// original order; and CTranslate2, in f32 on the CPU, if that Python has it too. In every round, the
/// contestants take turns at one development set after another. Times cover everything from tokenised prompts
/// to decoded answers: greedy decoding with cached keys and values, in batches of the same number of prompts.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A checkpoint in the Hugging Face layout, `hf:ORG/NAME[@REVISION]`, or `t5-small` or `probe` for random
    /// weights of that size, which are first trained on some of the tasks' training examples
    #[arg(long, value_name = "MODEL")]
    model: Model,
    /// GLUE's files
    #[arg(long, value_name = "DIR")]
    glue: PathBuf,
    #[command(flatten)]
    sample: Sample,
    /// Training steps for a model with random weights
    #[arg(long, value_name = "N", default_value_t = 40)]
    lessons: u64,
    /// Run only this contestant, named as in the table (`burn cpu`, `transformers unsorted`, `ctranslate2`);
    /// can be repeated. A backend that is not compiled in is built
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How many times each contestant answers all sets
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// A tokenizer.json, spiece.model or folder [default: the model's]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// A Python with torch and transformers, and optionally ctranslate2 [default: target/python/bin/python or
    /// python3, if they have torch and transformers]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Print every round as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        require(&self.only)?;
        start_threads(self.threads)?;
        let mut all = Contestant::all(&ORDERS, &ORDERS);
        all.push(Contestant::ctranslate2());
        let Field { contestants, python, left_out } = Field::new(all, &self.only, self.python.as_deref())?;
        interrupt::listen()?;
        let _graceful = Stoppable::new(&Terminal); // an interrupted bench still ends its workers
        let folder = tempfile::Builder::new().prefix("bench-glue-").tempdir();
        let folder = folder.context("cannot create a temporary directory")?;
        let (model, tokenizer) = self.model.prepare(folder.path(), &self)?;
        tokenizer.save(folder.path())?;
        let sets = DevSets::read(&self.glue, &self.sample)?;
        let questions = sets.questions(&tokenizer, &self.sample)?;
        write_prompts(&folder.path().join(PROMPTS), &questions)?;

        let parameters = parameter_count(&Checkpoint::open(&model)?)?;
        let mut answering = Answering {
            arguments: &self,
            model: &model,
            folder: folder.path(),
            python: python.as_deref(),
            questions: &questions,
        };
        let measured = answering.measure(contestants, parameters, self.rounds)?;
        let report = Report::new(&self.model, parameters, &self.sample, &questions, &measured);
        let text = (!self.json).then(|| report.text() + &left_out);
        conclude(&report, text, &report.contestants)
    }
}

/// The measurement.
struct Answering<'a> {
    arguments: &'a Arguments,
    model: &'a Path,
    folder: &'a Path,
    python: Option<&'a Path>,
    questions: &'a [Questions<'a>],
}

/// The result of one set in one turn.
struct SetAnswers {
    seconds: f64,
    /// `None` for an output that is no valid answer.
    answers: Vec<Option<String>>,
}

impl Measurement for Answering<'_> {
    type Answer = Answers;
    type Turn = SetAnswers;
    type Summary = Summary;
    const REQUEST: &'static str = ANSWER;

    fn command(&self, contestant: &Contestant) -> Result<Command> {
        let Arguments { glue, sample, .. } = self.arguments;
        let script = format!("bench_{}_glue.py", contestant.framework());
        let mut command = contestant.command("glue-worker", &script, self.python)?;
        command.arg("--model").arg(self.model);
        if contestant.needs_python() {
            command.arg("--prompts").arg(self.folder.join(PROMPTS));
            command.arg("--tokenizer").arg(self.folder.join("tokenizer.json"));
            command.args(["--batch-size", &sample.batch_size.to_string()]);
        } else {
            command.arg("--glue").arg(glue).arg("--tokenizer").arg(self.folder);
            command.args(sample.arguments());
        }
        Ok(command)
    }

    fn round(&mut self) -> Vec<usize> {
        (0..self.questions.len()).collect()
    }

    fn turn(&self, number: usize, Answers { seconds, answers }: Answers) -> Result<SetAnswers> {
        let questions = &self.questions[number];
        let prompts = questions.prompts().len();
        let sound = answers.len() == prompts && seconds.is_finite() && seconds > 0.0;
        ensure!(sound, "it gave {} answers to {prompts} prompts in {seconds} seconds", answers.len());
        let answers = answers.into_iter().map(|answer| answer.judged(questions)).collect();
        Ok(SetAnswers { seconds, answers })
    }
}

const PROMPTS: &str = "prompts.json";

fn write_prompts(path: &Path, questions: &[Questions<'_>]) -> Result<()> {
    let set = |questions: &Questions<'_>| json!({ "max_new_tokens": questions.generation_limit(), "prompts": questions.prompts() });
    let sets: Vec<_> = questions.iter().map(set).collect();
    fs::write(path, json!(sets).to_string()).with_context(|| format!("cannot write {}", path.display()))
}
