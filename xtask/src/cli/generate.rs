use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use pipeline::generate::{Generator, Said, inputs};
use pipeline::source::ModelPlace;
use pipeline::{Compute, Watch};
use serde_json::json;
use t5_model::Decoding;
use t5_model::text::TEXT_FIELD;

use crate::cli::compute::ComputeArguments;
use crate::cli::section::section;
use crate::terminal::output::{print, print_json};
use crate::terminal::{Terminal, warn};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask generate --model large \"The <extra_id_0> walks in <extra_id_1> park\" --fill\n",
    "  cargo xtask generate --model tuned \"cola sentence: The book was read by she.\"\n",
    "  cargo xtask generate --model large --input prompts.txt --top-p 0.9 --answers 3 --seed 7 --json\n",
    "  cargo xtask generate --model large --beams 4 --length-penalty 0.6 < prompts.txt",
);

/// The settings in the order in which the help lists them.
const DECODING: &str = "max_new_tokens answers sample temperature top_k top_p min_p seed beams length_penalty \
     early_stopping";

/// Answer texts with a model: greedily, by sampling, or by beam search
///
/// Each TEXT is one input; without any, each line of --input or of standard input is one. Prints one answer per
/// line, and with --answers N, N lines for each input. A pretrained model fills in sentinels; a fine-tuned
/// model answers in its task's words. The model's generation_config.json is followed as transformers follows
/// it in where answers begin and end and which tokens they have; a warning names its other settings, such as
/// beams, which are this command's to choose. An answer also ends with the tokenizer's end token.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, mut_args = section("Decoding", DECODING))]
pub struct Arguments {
    /// The checkpoint, with its tokenizer: a directory in the Hugging Face layout, or
    /// `hf:ORG/NAME[@REVISION]`
    #[arg(long, value_name = "MODEL")]
    model: ModelPlace,
    /// The inputs [default: the lines of standard input]
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// A file of inputs: one per line, or one per document of .json, .jsonl, .csv, .tsv or .parquet; `-` is
    /// standard input
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    input: Option<PathBuf>,
    /// The field of JSON, or column of a table, that holds the inputs
    #[arg(long, value_name = "NAME", default_value = TEXT_FIELD, requires = "input")]
    text_field: String,
    /// Print the inputs with their sentinels replaced by what the answers say of them
    #[arg(long)]
    fill: bool,
    /// Inputs per batch, which changes nothing but speed and memory
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// A tokenizer.json, spiece.model or folder, or bytes [default: the model's]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Print JSON: for every answer its input, text, tokens, and log probability
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    decoding: Decoding,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        self.decoding.check()?;
        let texts = self.inputs()?;
        self.compute.run(|compute| self.answer(&texts, compute))
    }

    fn answer(&self, texts: &[String], compute: &Compute) -> Result<()> {
        let model = self.model.directory(&Terminal)?;
        let tokenizer = self.tokenizer.as_deref();
        let mut generator = Generator::open(&model, tokenizer, self.decoding.clone(), compute)?;
        generator.warnings.iter().for_each(warn);
        let (batches, texts_in_all) = (texts.chunks(self.batch_size as usize), texts.len());
        // On a terminal, the answers themselves show how far it is.
        let shown = batches.len() > 1 && (self.json || !io::stdout().is_terminal());
        let progress = shown.then(|| Terminal.steps("generate", "inputs answered"));
        let (mut answered, mut all) = (0, Vec::new());
        for texts in batches {
            let answers = generator.answer(texts)?;
            answered += texts.len();
            if let Some(progress) = &progress {
                progress(answered, texts_in_all);
            }
            for (text, answers) in texts.iter().zip(answers) {
                for said in answers {
                    match self.json {
                        true => all.push(self.as_json(text, said)),
                        false => print(&self.as_line(&said))?,
                    }
                }
            }
        }
        drop(progress);
        if self.json { print_json(&all) } else { Ok(()) }
    }

    fn inputs(&self) -> Result<Vec<String>> {
        match &self.input {
            None if !self.texts.is_empty() => Ok(self.texts.clone()),
            Some(file) if file != Path::new("-") => inputs(file, &self.text_field),
            _ => {
                let lines = io::stdin().lock().lines().collect::<io::Result<Vec<_>>>();
                lines.context("cannot read standard input")
            }
        }
    }

    fn as_line(&self, said: &Said) -> String {
        let text = if self.fill { &said.filled } else { &said.output };
        format!("{}\n", text.replace('\n', " "))
    }

    fn as_json(&self, input: &str, said: Said) -> serde_json::Value {
        let Said { output, filled, tokens, log_probability, score } = said;
        let mut json = json!({ "input": input, "output": output });
        if self.fill {
            json["filled"] = filled.into();
        }
        json["tokens"] = tokens.into();
        json["log_probability"] = log_probability.into();
        if self.decoding.beams > 1 {
            json["score"] = score.into();
        }
        json
    }
}
