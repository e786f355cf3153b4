//! T5's parameters, as a table: names, axes, and how logits average (Section 3.1).

use fusion_core::table::Axis::{Embed, Heads, Kv, Mlp, RelposBuckets, Vocab};
use fusion_core::table::{Averaging, Dim, Origin, ParamSpec, ParamTable, dim, joined};

use crate::{FeedForward, Result, T5Config};

/// What a model computes in the place of one of a deeper model's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Its own block of that index.
    Own(usize),
    /// The same, but with output projections of zero: it adds nothing to the residual stream.
    Silent(usize),
    /// Nothing: all weights are zero.
    Absent,
}

/// The tensor of the embedding, and of a head that is tied to it.
pub(crate) const EMBEDDING: &str = "shared.weight";

/// The parameters of a T5, with Hugging Face's names and `[out, in]` layout.
pub fn parameter_table(config: &T5Config) -> Result<ParamTable> {
    config.validate()?;
    let own = |layers| (0..layers).map(Block::Own).collect();
    table_with_blocks(config, [own(config.num_layers), own(config.num_decoder_layers())])
}

/// The parameters of a T5 that takes part in a deeper one: what is in the place of each block of the deeper encoder and
/// decoder.
pub(crate) fn table_with_blocks(config: &T5Config, blocks: [Vec<Block>; 2]) -> Result<ParamTable> {
    let embed = || dim(Embed, config.d_model);
    let joined_kv = || joined(Heads, config.num_heads, Kv, config.d_kv);
    let mlp = || dim(Mlp, config.d_ff);
    let vocab = || dim(Vocab, config.vocab_size);
    let mut specs = vec![ParamSpec::new(EMBEDDING, [vocab(), embed()])];

    for (stack, blocks) in ["encoder", "decoder"].into_iter().zip(blocks) {
        for (block, here) in blocks.into_iter().enumerate() {
            let spec = |parameter: String, dims: Vec<Dim>, absent: f64| {
                let is_output = dims.len() == 2 && dims.first() == Some(&embed());
                let origin = match here {
                    Block::Silent(_) if is_output => Origin::Absent(absent),
                    Block::Own(own) | Block::Silent(own) if own == block => Origin::SameName,
                    Block::Own(own) | Block::Silent(own) => {
                        Origin::Tensor(format!("{stack}.block.{own}.{parameter}"))
                    }
                    Block::Absent => Origin::Absent(absent),
                };
                let name = format!("{stack}.block.{block}.{parameter}");
                ParamSpec::new(name, dims).from_origin(origin)
            };
            let attentions: &[&str] =
                if stack == "encoder" { &["SelfAttention"] } else { &["SelfAttention", "EncDecAttention"] };
            for (layer, attention) in attentions.iter().enumerate() {
                for projection in ["q", "k", "v"] {
                    let name = format!("layer.{layer}.{attention}.{projection}.weight");
                    specs.push(spec(name, vec![joined_kv(), embed()], 0.0).contracting(1));
                }
                let name = format!("layer.{layer}.{attention}.o.weight");
                specs.push(spec(name, vec![embed(), joined_kv()], 0.0).contracting(1));
                if block == 0 && layer == 0 {
                    // All blocks use it, so it is that of the model's first block wherever that is.
                    let name =
                        format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
                    let buckets = dim(RelposBuckets, config.relative_attention_num_buckets);
                    specs.push(ParamSpec::new(name, [buckets, dim(Heads, config.num_heads)]));
                }
                specs.push(spec(format!("layer.{layer}.layer_norm.weight"), vec![embed()], 1.0));
            }
            let layer = attentions.len();
            let inputs: &[&str] = match config.feed_forward_proj {
                FeedForward::Relu => &["wi"],
                FeedForward::GatedGelu => &["wi_0", "wi_1"],
            };
            for input in inputs {
                let name = format!("layer.{layer}.DenseReluDense.{input}.weight");
                specs.push(spec(name, vec![mlp(), embed()], 0.0).contracting(1));
            }
            let name = format!("layer.{layer}.DenseReluDense.wo.weight");
            specs.push(spec(name, vec![embed(), mlp()], 0.0).contracting(1));
            specs.push(spec(format!("layer.{layer}.layer_norm.weight"), vec![embed()], 1.0));
        }
        specs.push(ParamSpec::new(format!("{stack}.final_layer_norm.weight"), [embed()]));
    }

    // The average of the logits is folded into the last linear step before them that no one else uses.
    let averaged = if config.tied_head() {
        specs.pop()
    } else {
        Some(ParamSpec::new("lm_head.weight", [vocab(), embed()]).contracting(1))
    };
    specs.extend(
        averaged.map(|spec| if config.scale_logits() { spec.averaged_tied() } else { spec.averaged() }),
    );
    Ok(ParamTable::new(specs)?)
}

/// The parameters of a T5 as one with a head of its own that sees the decoder's output unscaled. It computes the same.
pub(crate) fn with_plain_head(table: &ParamTable, config: &T5Config) -> Result<ParamTable> {
    let mut specs: Vec<ParamSpec> =
        table.iter().map(|spec| ParamSpec { averaging: Averaging::None, ..spec.clone() }).collect();
    if config.tied_head() {
        let dims = [dim(Vocab, config.vocab_size), dim(Embed, config.d_model)];
        let head = ParamSpec::new("lm_head.weight", dims).contracting(1);
        specs.push(head.from_origin(Origin::Tensor(EMBEDDING.into())));
    }
    let scale = if config.scale_logits() { (config.d_model as f64).powf(-0.5) } else { 1.0 };
    let head = specs.pop().map(|head| head.times(scale).averaged());
    Ok(ParamTable::new(specs.into_iter().chain(head))?)
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
