//! The computation that training takes.

use crate::{FeedForward, T5Config};

/// Floating-point operations of a training step, forward and backward, divided by its input and target
/// tokens: three times two for each weight of the matrix products a token passes, and attention's products.
pub fn training_flops_per_token(config: &T5Config, input_length: usize, target_length: usize) -> f64 {
    let (d_model, inner, d_ff) = (config.d_model as f64, config.inner_dim() as f64, config.d_ff as f64);
    let (input, target) = (input_length as f64, target_length as f64);
    let mlp = match config.feed_forward_proj {
        FeedForward::Relu => 2.0 * d_model * d_ff,
        FeedForward::GatedGelu => 3.0 * d_model * d_ff,
    };
    let projections = 4.0 * d_model * inner;
    let encoder = config.num_layers as f64 * input * (projections + mlp + 2.0 * input * inner);
    let cross = target * (projections / 2.0 + 2.0 * input * inner) + input * projections / 2.0;
    let decoder =
        config.num_decoder_layers() as f64 * (target * (projections + mlp + 2.0 * target * inner) + cross);
    let head = target * d_model * config.vocab_size as f64;
    6.0 * (encoder + decoder + head) / (input + target)
}
