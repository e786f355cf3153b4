use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipeline::checkpoint::load_tokenizer;
use pipeline::numbers::thousands;
use pipeline::source::corpus;
use pipeline::tokenize::Tokenize;
use t5_model::text::TEXT_FIELD;

use crate::cli::compute::start_threads;
use crate::cli::text::PLACES;
use crate::ranks;
use crate::terminal::output::{print, print_json};
use crate::terminal::{Terminal, interrupt};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask data tokenize --text texts --tokenizer vocabulary --output tokens\n",
    "  cargo xtask data tokenize --text hf:allenai/c4/en --tokenizer vocabulary --output tokens\n",
    "  cargo xtask pretrain --text tokens --tokenizer tokens …",
);

/// Tokenize text once, for trainings that read it again and again
///
/// Writes a file of tokens for each file of the text, which trainings map into memory. Named in place of the text, DIR
/// gives the same batches in the same order. It also holds the tokenizer. If interrupted, the same command goes on; of
/// several processes (`launch`, torchrun, srun), each does its share of the files.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[arg(long, value_name = "PATH", required = true, num_args = 1.., help = PLACES)]
    text: Vec<String>,
    /// The field of JSON, or column of a table, that holds the text
    #[arg(long, value_name = "NAME", default_value = TEXT_FIELD)]
    text_field: String,
    /// A tokenizer.json, spiece.model or folder, such as a model, or bytes (ByT5's)
    #[arg(long, value_name = "PATH")]
    tokenizer: PathBuf,
    /// Where to write the tokens
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace tokens of another text or tokenizer that are in DIR
    #[arg(long)]
    overwrite: bool,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print JSON: the numbers of files, documents, tokens and bytes
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        start_threads(self.threads)?;
        let tokenizer = load_tokenizer(&self.tokenizer)?;
        let tokenize = Tokenize {
            text: &corpus::from_here(&self.text)?,
            field: &self.text_field,
            tokenizer: &tokenizer,
            share: ranks::place().map_or((0, 1), |place| (place.rank, place.world_size)),
            overwrite: self.overwrite,
        };
        interrupt::listen()?;
        let made = tokenize.run(&self.output, &Terminal)?;
        if self.json {
            return print_json(&made);
        }
        let [documents, tokens, bytes] = [made.documents, made.tokens, made.bytes].map(thousands);
        let (place, files) = (self.output.display(), made.files);
        print(&format!("{place}: {files} files, {documents} documents, {tokens} tokens, {bytes} bytes\n"))
    }
}
