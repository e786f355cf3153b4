//! T5's parameters, as a table: names, axes, and how logits average (Section 3.1).

use fusion_core::Axis::{Embed, Heads, Kv, Mlp, RelposBuckets, Vocab};
use fusion_core::{Dim, ParamSpec, ParamTable, dim, joined};

use crate::{FeedForward, Result, T5Config};

/// The parameters of a T5, with Hugging Face's names and `[out, in]` layout.
pub fn parameter_table(config: &T5Config) -> Result<ParamTable> {
    config.validate()?;
    let embed = || dim(Embed, config.d_model);
    let joined_kv = || joined(Heads, config.num_heads, Kv, config.d_kv);
    let mlp = || dim(Mlp, config.d_ff);
    let vocab = || dim(Vocab, config.vocab_size);
    let mut specs = vec![ParamSpec::new("shared.weight", [vocab(), embed()])];
    let mut add = |name: String, dims: Vec<Dim>| specs.push(ParamSpec::new(name, dims));

    for (stack, layers) in [("encoder", config.num_layers), ("decoder", config.num_decoder_layers())] {
        for block in 0..layers {
            let attentions: &[&str] =
                if stack == "encoder" { &["SelfAttention"] } else { &["SelfAttention", "EncDecAttention"] };
            for (layer, attention) in attentions.iter().enumerate() {
                let layer = format!("{stack}.block.{block}.layer.{layer}");
                for projection in ["q", "k", "v"] {
                    add(format!("{layer}.{attention}.{projection}.weight"), vec![joined_kv(), embed()]);
                }
                add(format!("{layer}.{attention}.o.weight"), vec![embed(), joined_kv()]);
                if block == 0 && *attention == "SelfAttention" {
                    add(
                        format!("{layer}.{attention}.relative_attention_bias.weight"),
                        vec![
                            dim(RelposBuckets, config.relative_attention_num_buckets),
                            dim(Heads, config.num_heads),
                        ],
                    );
                }
                add(format!("{layer}.layer_norm.weight"), vec![embed()]);
            }
            let layer = format!("{stack}.block.{block}.layer.{}", attentions.len());
            let inputs: &[&str] = match config.feed_forward_proj {
                FeedForward::Relu => &["wi"],
                FeedForward::GatedGelu => &["wi_0", "wi_1"],
            };
            for input in inputs {
                add(format!("{layer}.DenseReluDense.{input}.weight"), vec![mlp(), embed()]);
            }
            add(format!("{layer}.DenseReluDense.wo.weight"), vec![embed(), mlp()]);
            add(format!("{layer}.layer_norm.weight"), vec![embed()]);
        }
        add(format!("{stack}.final_layer_norm.weight"), vec![embed()]);
    }

    // The average of the logits is folded into the last linear step before them that no one else uses.
    let averaged = if config.tied_head() {
        specs.pop()
    } else {
        Some(ParamSpec::new("lm_head.weight", [vocab(), embed()]))
    };
    specs.extend(
        averaged.map(|spec| if config.scale_logits() { spec.averaged_tied() } else { spec.averaged() }),
    );
    Ok(ParamTable::new(specs)?)
}

/// Floating-point operations of a training step, forward and backward, divided by its input and target tokens: three
/// times two for each weight of the matrix products a token passes, and attention's products.
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
