//! T5X's parameters under Hugging Face's names. T5X keeps matrices as `[in, out]`, and position biases as
//! `[heads, buckets]`. Source: `t5x/examples/t5/network.py`, and transformers'
//! `convert_t5x_checkpoint_to_pytorch.py`.

use std::collections::BTreeMap;

use super::{Linear, Module, Stack, SublayerKind};
use crate::{Error, Result};

/// The prefixes of parameters; other arrays hold the optimiser's moments and the step.
const TARGETS: [&str; 2] = ["optimizer/target/", "target/"];

/// Where weights keep a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredParameter {
    /// The name of the array.
    pub tensor: String,
    /// Whether the parameter is the tensor's transpose.
    pub transposed: bool,
}

/// The parameters of a T5X checkpoint; none if these are not the names of one's arrays.
///
/// # Errors
/// An array below `target` that is no parameter of a T5, or a second one for the same.
pub fn t5x_parameters(arrays: &[String]) -> Result<BTreeMap<String, StoredParameter>> {
    let mut parameters = BTreeMap::new();
    for array in arrays {
        let Some(name) = TARGETS.iter().find_map(|target| array.strip_prefix(target)) else { continue };
        let parts: Vec<&str> = name.split('/').collect();
        let module = module(&parts).ok_or_else(|| Error::T5xArray { array: array.clone() })?;
        let transposed = matches!(module, Module::Linear(..) | Module::Head | Module::PositionBias(_));
        let stored = StoredParameter { tensor: array.clone(), transposed };
        if parameters.insert(module.weight(), stored).is_some() {
            return Err(Error::T5xArray { array: array.clone() });
        }
    }
    Ok(parameters)
}

fn module(parts: &[&str]) -> Option<Module> {
    let stack = |name: &str| match name {
        "encoder" => Some(Stack::Encoder),
        "decoder" => Some(Stack::Decoder),
        _ => None,
    };
    Some(match parts {
        ["token_embedder", "embedding"] => Module::Embedding,
        ["decoder", "logits_dense", "kernel"] => Module::Head,
        ["encoder", "encoder_norm", "scale"] => Module::FinalNorm(Stack::Encoder),
        ["decoder", "decoder_norm", "scale"] => Module::FinalNorm(Stack::Decoder),
        [name, "relpos_bias", "rel_embedding"] => Module::PositionBias(stack(name)?),
        [name, block, module @ ..] => {
            in_block(stack(name)?, block.strip_prefix("layers_")?.parse().ok()?, module)?
        }
        _ => return None,
    })
}

fn in_block(stack: Stack, block: usize, module: &[&str]) -> Option<Module> {
    use SublayerKind::{CrossAttention, FeedForward, SelfAttention};
    Some(match module {
        [norm, "scale"] => {
            let kind = match (stack, *norm) {
                (Stack::Encoder, "pre_attention_layer_norm") => SelfAttention,
                (Stack::Decoder, "pre_self_attention_layer_norm") => SelfAttention,
                (Stack::Decoder, "pre_cross_attention_layer_norm") => CrossAttention,
                (_, "pre_mlp_layer_norm") => FeedForward,
                _ => return None,
            };
            Module::Norm(stack.sublayer(block, kind))
        }
        [layer, name, "kernel"] => {
            let kind = match (stack, *layer) {
                (Stack::Encoder, "attention") | (Stack::Decoder, "self_attention") => SelfAttention,
                (Stack::Decoder, "encoder_decoder_attention") => CrossAttention,
                (_, "mlp") => FeedForward,
                _ => return None,
            };
            let linear = match (kind, *name) {
                (SelfAttention | CrossAttention, "query") => Linear::Query,
                (SelfAttention | CrossAttention, "key") => Linear::Key,
                (SelfAttention | CrossAttention, "value") => Linear::Value,
                (SelfAttention | CrossAttention, "out") => Linear::AttentionOutput,
                (FeedForward, "wi") => Linear::Input,
                (FeedForward, "wi_0") => Linear::Gate,
                (FeedForward, "wi_1") => Linear::GatedInput,
                (FeedForward, "wo") => Linear::Output,
                _ => return None,
            };
            Module::Linear(stack.sublayer(block, kind), linear)
        }
        _ => return None,
    })
}
