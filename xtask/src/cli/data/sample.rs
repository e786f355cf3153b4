use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipeline::checkpoint::load_tokenizer;
use pipeline::sample::{Example, samples};
use pipeline::stage::Input;
use t5_model::text::DataPosition;

use crate::cli::text::TextArguments;
use crate::terminal::Terminal;
use crate::terminal::output::{print, print_json};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask data sample --text texts --tokenizer vocabulary --input-length 64\n",
    "  cargo xtask data sample --text texts --tokenizer vocabulary --objective ul2 --mode-tokens\n",
    "  cargo xtask data sample --text texts --held-out-every 100 --tokenizer small --held-out --batches 4 --json",
);

/// Show what a training would read: batches as text
///
/// Given the text, tokenizer, seed and batch size of a training, prints its batches in order, as `pretrain`
/// would read them. Of every example it prints the text, the input, in which sentinels stand for masked
/// spans, and the target, which says what they stand for; in prefix language modelling, the target goes on where
/// the input ends.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, mut_group("HeldOut", |group| group.required(false)))]
pub struct Arguments {
    /// Show the held-out text, as evaluations read it
    #[arg(long)]
    held_out: bool,
    /// Examples per batch
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch_size: usize,
    /// The number of batches
    #[arg(long, value_name = "N", default_value_t = 1)]
    batches: usize,
    /// Leave out this many batches first
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: usize,
    /// The training's seed, which the order and the corruption depend on
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print JSON: for every batch its examples, with token ids, and the position of the stream after it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    text: TextArguments,
    /// A tokenizer.json, spiece.model or folder, such as a model, or bytes (ByT5's)
    #[arg(long, value_name = "PATH", help_heading = "Text")]
    tokenizer: PathBuf,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let data = self.text.data(Input::tokenizer(self.tokenizer.clone()))?;
        let text = data.open(load_tokenizer(&self.tokenizer)?, &Terminal)?;
        let stream = match self.held_out {
            true => text.evaluation_in_batches(self.batch_size)?,
            false => text.training(self.batch_size, self.seed, DataPosition::default())?,
        };
        let samples = samples(stream, text.tokenizer()).skip(self.skip).take(self.batches);
        if self.json {
            return print_json(&samples.collect::<Result<Vec<_>>>()?);
        }
        for (number, sample) in (self.skip + 1..).zip(samples) {
            for (example, number_in_batch) in sample?.examples.iter().zip(1..) {
                print(&shown(example, &format!("batch {number}, example {number_in_batch}")))?;
            }
        }
        Ok(())
    }
}

fn shown(example: &Example, title: &str) -> String {
    let Example { denoiser, text, input, target, spans, masked, tokens, .. } = example;
    let share = 100.0 * *masked as f64 / (*tokens).max(1) as f64;
    let denoiser = denoiser.as_ref().map_or(String::new(), |denoiser| format!(" ({denoiser})"));
    let what = match spans {
        0 => format!("{masked} of {tokens} tokens ({share:.1} %) follow the prefix"),
        1 => format!("{masked} of {tokens} tokens masked ({share:.1} %), in 1 span"),
        _ => format!("{masked} of {tokens} tokens masked ({share:.1} %), in {spans} spans"),
    };
    format!(
        "{title}{denoiser}: {what}\n\
         text:   {text}\n\
         input:  {input}\n\
         target: {target}\n\n"
    )
}
