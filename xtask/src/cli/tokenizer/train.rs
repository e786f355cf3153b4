use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipeline::checkpoint::check_replaceable_tokenizer;
use pipeline::numbers::thousands;
use pipeline::source::corpus;
use pipeline::stage::tokenizer::{T5_SENTINELS, TrainTokenizer};
use t5_model::text::TEXT_FIELD;

use crate::cli::compute::start_threads;
use crate::cli::text::PLACES;
use crate::terminal::Terminal;
use crate::terminal::output::{print, print_json};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask tokenizer train --text texts --vocabulary 32000 --output vocabulary\n",
    "  cargo xtask pretrain --tokenizer vocabulary …",
);

/// Train a vocabulary in the style of T5's on text
///
/// Writes a Unigram vocabulary with T5's special tokens and sentinels to DIR: tokenizer.json, and the files that
/// transformers' AutoTokenizer reads beside it. Text is normalised as in T5. The result depends only on the
/// words and how often each occurs. All models that are to be fused need the same vocabulary.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[arg(long, value_name = "PATH", required = true, num_args = 1.., help = PLACES)]
    text: Vec<String>,
    /// The field of JSON, or column of a table, that holds the text
    #[arg(long, value_name = "NAME", default_value = TEXT_FIELD)]
    text_field: String,
    /// Where to write the tokenizer
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The number of tokens, including special ones and sentinels; fewer if the text does not yield as many
    #[arg(long, value_name = "N", default_value_t = 32_100)]
    vocabulary: usize,
    /// The number of sentinels, which stand for masked spans
    #[arg(long, value_name = "N", default_value_t = T5_SENTINELS)]
    sentinels: usize,
    /// Leave out every K-th document, as `pretrain --held-out-every K` does
    #[arg(long, value_name = "K")]
    held_out_every: Option<NonZeroU64>,
    /// Read at most this many documents
    #[arg(long, value_name = "N")]
    max_documents: Option<u64>,
    /// Replace a tokenizer that is already in DIR
    #[arg(long)]
    overwrite: bool,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print JSON: the numbers of documents, characters and tokens, and the vocabulary's fingerprint
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        check_replaceable_tokenizer(&self.output, self.overwrite)?;
        start_threads(self.threads)?;
        let work = TrainTokenizer {
            text: corpus::from_here(&self.text)?,
            text_field: self.text_field,
            held_out_every: self.held_out_every,
            vocabulary: self.vocabulary,
            sentinels: self.sentinels,
            max_documents: self.max_documents,
        };
        let trained = work.train(&self.output, &Terminal)?;
        if self.json {
            return print_json(&trained);
        }
        let numbers = [trained.vocabulary, trained.documents, trained.characters];
        let [tokens, documents, characters] = numbers.map(|number| thousands(number as u64));
        let place = self.output.display();
        print(&format!("{place}: {tokens} tokens, from {documents} documents of {characters} characters\n"))
    }
}
