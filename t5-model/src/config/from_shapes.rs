//! A configuration from weights that come without one.

use crate::parameters::{Linear, Module, Stack, SublayerKind};
use crate::{Error, FeedForward, Result, T5Config};

impl T5Config {
    /// The configuration implied by the shapes of a T5's parameters, under Hugging Face's names. Whatever no
    /// shape tells is as in the published T5s: a largest relative distance of 128, an epsilon of 1e-6, GELU
    /// in a gated MLP and ReLU in one without a gate, and scaled outputs if the embedding is the head.
    ///
    /// # Errors
    /// A parameter is missing or has an impossible shape.
    pub fn of_shapes(shape: impl Fn(&str) -> Option<Vec<usize>>) -> Result<Self> {
        let shape = |module: Module| shape(&module.weight());
        let matrix = |module: Module| match shape(module).as_deref() {
            Some([rows, columns]) => Ok((*rows, *columns)),
            Some(shape) => Err(Error::NoConfiguration(format!("{} has shape {shape:?}", module.weight()))),
            None => Err(Error::NoConfiguration(format!("there is no {}", module.weight()))),
        };
        let attention = Stack::Encoder.sublayer(0, SublayerKind::SelfAttention);
        let feed_forward = Stack::Encoder.sublayer(0, SublayerKind::FeedForward);
        let (vocabulary, d_model) = matrix(Module::Embedding)?;
        let (buckets, heads) = matrix(Module::PositionBias(Stack::Encoder))?;
        let (inner, _) = matrix(Module::Linear(attention, Linear::Query))?;
        if heads == 0 || inner % heads != 0 {
            return Err(Error::NoConfiguration(format!("{inner} features cannot be those of {heads} heads")));
        }
        let is_gated = shape(Module::Linear(feed_forward, Linear::Input)).is_none();
        let input = if is_gated { Linear::Gate } else { Linear::Input };
        let (d_ff, _) = matrix(Module::Linear(feed_forward, input))?;
        let depth = |stack: Stack| {
            let norm = |block| Module::Norm(stack.sublayer(block, SublayerKind::SelfAttention));
            (0..).take_while(|block| shape(norm(*block)).is_some()).count()
        };

        let mut config =
            T5Config::v1_1(vocabulary, d_model, heads, inner / heads, d_ff, depth(Stack::Encoder));
        config.set_num_decoder_layers(depth(Stack::Decoder));
        config.relative_attention_num_buckets = buckets;
        config.feed_forward_proj = if is_gated { FeedForward::GatedGelu } else { FeedForward::Relu };
        config.tie_word_embeddings = shape(Module::Head).is_none();
        config.validate()?;
        Ok(config)
    }
}
