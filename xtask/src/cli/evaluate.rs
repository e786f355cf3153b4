use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipeline::source::ModelPlace;
use pipeline::stage::Input;
use pipeline::stage::evaluate::Evaluate;
use pipeline::stage::text::Data;

use crate::cli::compute::ComputeArguments;
use crate::terminal::Terminal;
use crate::terminal::output::{print, print_json};

const EXAMPLES: &str =
    concat!("Example:\n", "  cargo xtask evaluate --model fused --text validation.json.gz",);

/// Measure a model's loss and token accuracy on text
///
/// The text is span-corrupted with a fixed seed, as in pretraining, so all models with the same tokenizer see
/// the same targets. The loss is the mean cross-entropy per target token, in nats.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoint: a directory in the Hugging Face layout, or `hf:ORG/NAME[@REVISION]`
    #[arg(long, value_name = "MODEL")]
    model: ModelPlace,
    /// Files, folders or globs (.json, .jsonl or .txt, optionally .gz or .zst), or builtin:webster
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    text: Vec<String>,
    /// A tokenizer.json, spiece.model or folder [default: the model's]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Tokens per input
    #[arg(long, value_name = "N", default_value_t = 512)]
    input_length: usize,
    /// Examples per batch
    #[arg(long, value_name = "N", default_value_t = 32)]
    batch_size: usize,
    /// The maximum number of batches
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    batches: u64,
    /// Print JSON: loss, accuracy (as a fraction), target tokens
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let input = Input::from(self.model.clone());
        let tokenizer = self.tokenizer.clone().map_or_else(|| input.clone(), Input::Path);
        let data = Data::to_evaluate(&self.text, tokenizer, self.input_length)?;
        let model = self.model.directory(&Terminal)?;
        let tokenizer = self.tokenizer.as_deref().unwrap_or(&model);
        let work = Evaluate { model: input, data, batch_size: self.batch_size, batches: self.batches };
        let score = work.score(&model, tokenizer, &self.compute.start()?, &Terminal)?;
        if self.json {
            return print_json(&score);
        }
        let accuracy = 100.0 * score.accuracy;
        print(&format!("loss {:.4}, token accuracy {accuracy:.2} %, {} tokens\n", score.loss, score.tokens))
    }
}
