use std::io::{self, BufRead};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use fusion_core::checkpoint::Checkpoint;
use pipeline::checkpoint::tokenizer_for;
use pipeline::source::ModelPlace;
use serde_json::json;
use t5_model::{Batch, T5Config};

use crate::cli::compute::ComputeArguments;
use crate::terminal::Terminal;
use crate::terminal::output::{print, print_json};

/// The number of rows generated at a time.
const BATCH: usize = 16;

const EXAMPLES: &str = concat!(
    "Example:\n",
    "  cargo xtask generate --model tuned \"cola sentence: The book was read by she.\"",
);

/// Answer texts with a model, by greedy decoding
///
/// Each TEXT is one input; if there is none, each line of standard input is one. Prints one answer per line.
/// A pretrained model fills in sentinels; a fine-tuned model answers in its task's words.
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
    /// The maximum number of tokens per answer
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_new_tokens: u32,
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
        let checkpoint = Checkpoint::open(&model)?;
        let config = T5Config::of_checkpoint(&checkpoint)?;
        let tokenizer = tokenizer_for(&model, &config, self.tokenizer.as_deref())?;
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
            let outputs = session.generate(&batch, self.max_new_tokens as usize, &|_| false)?;
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
