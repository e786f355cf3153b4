use std::io::{self, BufRead};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use pipeline::checkpoint::{generation_warnings, tokenizer_for};
use pipeline::source::ModelPlace;
use serde_json::json;
use t5_model::{Batch, GenerationSettings, T5Config};

use crate::cli::compute::ComputeArguments;
use crate::terminal::output::{print, print_json};
use crate::terminal::{Terminal, warn};

/// The number of rows generated at a time.
const BATCH: usize = 16;
/// The most tokens of an answer if nobody says.
const MAX_NEW_TOKENS: usize = 64;

const EXAMPLES: &str = concat!(
    "Example:\n",
    "  cargo xtask generate --model tuned \"cola sentence: The book was read by she.\"",
);

/// Answer texts with a model, by greedy decoding
///
/// Each TEXT is one input; if there is none, each line of standard input is one. Prints one answer per line.
/// A pretrained model fills in sentinels; a fine-tuned model answers in its task's words. The settings in the
/// model's generation_config.json are followed as transformers follows them; those that greedy decoding cannot
/// follow, such as beams, are named. An answer also ends with the tokenizer's end token.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoint, with its tokenizer: a directory in the Hugging Face layout, or
    /// `hf:ORG/NAME[@REVISION]`
    #[arg(long, value_name = "MODEL")]
    model: ModelPlace,
    /// The inputs [default: the lines of standard input]
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// The maximum number of tokens per answer [default: what generation_config.json says, or else 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_new_tokens: Option<u32>,
    /// A tokenizer.json, spiece.model or folder [default: the model's]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Print JSON: inputs, answers and their token ids
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let model = self.model.directory(&Terminal)?;
        let (checkpoint, config) = T5Config::open(&model)?;
        let tokenizer = tokenizer_for(&model, &config, self.tokenizer.as_deref())?;
        let settings = GenerationSettings::of(&model, &config)?;
        generation_warnings(&settings, &tokenizer).iter().for_each(warn);
        let mut decoding = settings.decoding(tokenizer.eos_id(), MAX_NEW_TOKENS);
        if let Some(most) = self.max_new_tokens {
            decoding.max_new_tokens = most as usize;
        }
        let mut session = self.compute.start()?.open_checkpoint(&checkpoint)?;
        let texts = if self.texts.is_empty() {
            let lines = io::stdin().lock().lines().collect::<io::Result<Vec<_>>>();
            lines.context("cannot read standard input")?
        } else {
            self.texts
        };
        let mut answers = Vec::new();
        for texts in texts.chunks(BATCH) {
            let mut inputs = tokenizer.encode_batch(texts)?;
            inputs.iter_mut().for_each(|input| input.push(tokenizer.eos_id()));
            let rows = inputs.iter().map(|input| (input.as_slice(), [].as_slice()));
            let batch = Batch::padded(rows, tokenizer.pad_id());
            let outputs = session.generate(&batch, &decoding, &|_| false)?;
            for (text, tokens) in texts.iter().zip(outputs) {
                let answer = tokenizer.decode(&tokens)?;
                if self.json {
                    answers.push(json!({ "input": text, "output": answer, "tokens": tokens }));
                } else {
                    print(&format!("{}\n", answer.replace('\n', " ")))?;
                }
            }
        }
        if self.json { print_json(&answers) } else { Ok(()) }
    }
}
