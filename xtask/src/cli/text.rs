//! The text that a command reads.

use std::num::NonZeroU64;

use anyhow::Result;
use clap::{Arg, Args};
use pipeline::source::corpus;
use pipeline::stage::Input;
use pipeline::stage::text::{Data, HeldOut};
use t5_model::text::{ObjectiveOptions, TEXT_FIELD};

/// What may be named as text.
pub const PLACES: &str = "Files, folders or globs (.json, .jsonl, .txt, .csv or .tsv, optionally .gz or .zst; .parquet; \
                          .tokens), hf:ORG/DATASET, s3://…, gs://…, https://…, or builtin:webster";

/// Text, and how it is cut into examples.
#[derive(Args, Debug)]
#[command(next_help_heading = "Text")]
pub struct TextArguments {
    #[arg(long, value_name = "PATH", required = true, num_args = 1.., help = PLACES)]
    pub text: Vec<String>,
    /// The field of JSON, or column of a table, that holds the text
    #[arg(long, value_name = "NAME", default_value = TEXT_FIELD)]
    pub text_field: String,
    #[command(flatten)]
    pub held_out: HeldOutArguments,
    /// Tokens per input
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub input_length: usize,
    /// Train on at most this many documents
    #[arg(long, value_name = "N")]
    pub max_documents: Option<u64>,
    #[command(flatten)]
    pub objective: ObjectiveOptions,
}

/// The text to evaluate on. A command that can do without it makes the group optional.
#[derive(Args, Debug)]
#[group(id = "HeldOut", required = true, multiple = false)]
pub struct HeldOutArguments {
    /// Evaluate on this text
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub held_out_text: Vec<String>,
    /// Hold out every K-th document of the text for evaluation
    #[arg(long, value_name = "K")]
    pub held_out_every: Option<NonZeroU64>,
}

/// Makes the options of an objective need another argument, with which a command reads text.
pub fn only_with(text: &'static str) -> impl Fn(Arg) -> Arg {
    const OBJECTIVE: [&str; 5] =
        ["objective", "noise_density", "mean_span_length", "mode_tokens", "denoiser"];
    move |arg| match OBJECTIVE.iter().any(|id| arg.get_id() == id) {
        true => arg.requires(text),
        false => arg,
    }
}

impl TextArguments {
    /// The text as a stage has it. Without held-out text, everything is trained on.
    pub fn data(&self, tokenizer: Input) -> Result<Data> {
        let text = corpus::from_here(&self.text)?;
        let HeldOutArguments { held_out_text, held_out_every } = &self.held_out;
        let held_out = match held_out_every {
            Some(every) => HeldOut::Every(*every),
            None if held_out_text.is_empty() => HeldOut::Text(text.clone()),
            None => HeldOut::Text(corpus::from_here(held_out_text)?),
        };
        let (input_length, max_documents) = (self.input_length, self.max_documents);
        let (text_field, objective) = (self.text_field.clone(), self.objective.objective()?);
        Ok(Data { text, text_field, held_out, tokenizer, input_length, objective, max_documents })
    }
}
