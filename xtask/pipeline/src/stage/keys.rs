//! The tables of a recipe that are not a stage's whole work.

use std::num::NonZeroU64;

use serde::Deserialize;
use toml::Spanned;

/// `[data]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataTable {
    pub text: Texts,
    #[serde(default)]
    pub held_out_text: Option<Texts>,
    #[serde(default)]
    pub held_out_every: Option<NonZeroU64>,
    #[serde(default)]
    pub tokenizer: Option<Spanned<String>>,
    #[serde(default = "t5_input_length")]
    pub input_length: usize,
    #[serde(default)]
    pub max_documents: Option<u64>,
}

fn t5_input_length() -> usize {
    512
}

/// One text or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Texts {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerTable {
    pub vocabulary: usize,
    #[serde(default = "t5_sentinels")]
    pub sentinels: usize,
    #[serde(default)]
    pub max_documents: Option<u64>,
}

fn t5_sentinels() -> usize {
    100
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateTable {
    pub model: Spanned<String>,
    #[serde(default = "evaluation_batch")]
    pub batch_size: usize,
    #[serde(default = "evaluation_batches")]
    pub batches: u64,
}

fn evaluation_batch() -> usize {
    32
}
fn evaluation_batches() -> u64 {
    500
}
