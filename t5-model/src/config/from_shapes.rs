//! A configuration from weights that come without one.

use crate::{Error, FeedForward, Result, T5Config};

impl T5Config {
    /// The configuration that the shapes of a T5's parameters call for, by Hugging Face's names. What no shape tells is
    /// as in the published T5s: 128 as the largest relative distance, an epsilon of 1e-6, a gated MLP with GELU and one
    /// without gate with ReLU, and scaled outputs where the embedding is the head.
    ///
    /// # Errors
    /// A parameter that is not there, or whose shape is none that it can have.
    pub fn of_shapes(shape: impl Fn(&str) -> Option<Vec<usize>>) -> Result<Self> {
        let matrix = |parameter: &str| match shape(parameter).as_deref() {
            Some([rows, columns]) => Ok((*rows, *columns)),
            Some(shape) => Err(Error::NoConfiguration(format!("{parameter} has shape {shape:?}"))),
            None => Err(Error::NoConfiguration(format!("there is no {parameter}"))),
        };
        let first = |parameter: &str| format!("encoder.block.0.layer.{parameter}.weight");
        let (vocabulary, d_model) = matrix("shared.weight")?;
        let (buckets, heads) = matrix(&first("0.SelfAttention.relative_attention_bias"))?;
        let (inner, _) = matrix(&first("0.SelfAttention.q"))?;
        if heads == 0 || inner % heads != 0 {
            return Err(Error::NoConfiguration(format!("{inner} features cannot be those of {heads} heads")));
        }
        let is_gated = shape(&first("1.DenseReluDense.wi")).is_none();
        let input = if is_gated { "1.DenseReluDense.wi_0" } else { "1.DenseReluDense.wi" };
        let (d_ff, _) = matrix(&first(input))?;
        let layers = |stack: &str| {
            let is_there = |block: &usize| shape(&format!("{stack}.block.{block}.layer.0.layer_norm.weight"));
            (0..).take_while(|block| is_there(block).is_some()).count()
        };

        let mut config = T5Config::v1_1(vocabulary, d_model, heads, inner / heads, d_ff, layers("encoder"));
        config.set_num_decoder_layers(layers("decoder"));
        config.relative_attention_num_buckets = buckets;
        config.feed_forward_proj = if is_gated { FeedForward::GatedGelu } else { FeedForward::Relu };
        config.tie_word_embeddings = shape("lm_head.weight").is_none();
        config.validate()?;
        Ok(config)
    }
}
