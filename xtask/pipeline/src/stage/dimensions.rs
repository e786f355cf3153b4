//! `[models.NAME]` of a recipe.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use t5_model::{FeedForward, Initialization, T5Config};

use super::Vocabulary;

/// A new T5, in the terms of Hugging Face's `config.json`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dimensions {
    /// Width of the hidden states.
    pub d_model: usize,
    /// Attention heads per layer.
    pub num_heads: usize,
    /// Width of each head's queries, keys and values.
    pub d_kv: usize,
    /// Width of the hidden activations in feed-forward layers.
    pub d_ff: usize,
    /// Layers of the encoder, and of the decoder unless it has its own number.
    pub num_layers: usize,
    /// Layers of the decoder [default: as many as the encoder has].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_decoder_layers: Option<usize>,
    /// The activation of feed-forward layers, and whether it is gated.
    #[serde(default = "gated_gelu")]
    pub feed_forward_proj: FeedForward,
    /// Whether the embedding is also the output projection.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Rows of the embedding [default: as many as the tokenizer has tokens, as a multiple of 128].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// How many parameters the model is said to have, to the digits that are given, such as `77e6`. Plans show it, and
    /// warn of another number.
    #[serde(default, skip_serializing)]
    pub parameters: Option<f64>,
    /// How the random weights begin: `t5`, `mimetic`, or parts of the latter, such as `matching+local`
    /// [default: t5].
    #[serde(default, skip_serializing_if = "Initialization::is_t5")]
    pub init: Initialization,
}

fn gated_gelu() -> FeedForward {
    FeedForward::GatedGelu
}

impl Dimensions {
    /// A T5 of these dimensions for a tokenizer with this vocabulary.
    pub fn config(&self, vocabulary: &Vocabulary) -> Result<T5Config> {
        let rows = self.vocab_size.unwrap_or(vocabulary.size);
        let tokens = vocabulary.tokens;
        ensure!(rows >= tokens, "`vocab_size` is {rows}, but the tokenizer has {tokens} tokens");
        let mut config =
            T5Config::v1_1(rows, self.d_model, self.num_heads, self.d_kv, self.d_ff, self.num_layers);
        config.set_num_decoder_layers(self.num_decoder_layers.unwrap_or(self.num_layers));
        config.feed_forward_proj = self.feed_forward_proj;
        config.tie_word_embeddings = self.tie_word_embeddings;
        config.validate()?;
        Ok(config)
    }
}
