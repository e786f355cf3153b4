//! T5X's parameters under Hugging Face's names. T5X keeps matrices as `[in, out]`, and position biases as
//! `[heads, buckets]`. Source: `t5x/examples/t5/network.py`, and transformers' `convert_t5x_checkpoint_to_pytorch.py`.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// What the parameters lie below; beside them are the optimiser's moments and the step.
const TARGETS: [&str; 2] = ["optimizer/target/", "target/"];

/// Where weights keep a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredParameter {
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
        let (parameter, transposed) =
            parameter(&parts).ok_or_else(|| Error::T5xArray { array: array.clone() })?;
        let stored = StoredParameter { tensor: array.clone(), transposed };
        if parameters.insert(parameter, stored).is_some() {
            return Err(Error::T5xArray { array: array.clone() });
        }
    }
    Ok(parameters)
}

/// A parameter's name, and whether it is transposed.
fn parameter(parts: &[&str]) -> Option<(String, bool)> {
    Some(match parts {
        ["token_embedder", "embedding"] => ("shared.weight".into(), false),
        ["decoder", "logits_dense", "kernel"] => ("lm_head.weight".into(), true),
        ["encoder", "encoder_norm", "scale"] => ("encoder.final_layer_norm.weight".into(), false),
        ["decoder", "decoder_norm", "scale"] => ("decoder.final_layer_norm.weight".into(), false),
        [stack @ ("encoder" | "decoder"), "relpos_bias", "rel_embedding"] => {
            (format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"), true)
        }
        [stack @ ("encoder" | "decoder"), block, module @ ..] => {
            let block: usize = block.strip_prefix("layers_")?.parse().ok()?;
            let (parameter, transposed) = in_block(stack, module)?;
            (format!("{stack}.block.{block}.layer.{parameter}.weight"), transposed)
        }
        _ => return None,
    })
}

/// The same inside of a block: from the layer's number on.
fn in_block(stack: &str, module: &[&str]) -> Option<(String, bool)> {
    let mlp = if stack == "encoder" { 1 } else { 2 };
    let attention = |layer: &str, projection: &str| {
        let projection = match projection {
            "query" => "q",
            "key" => "k",
            "value" => "v",
            "out" => "o",
            _ => return None,
        };
        Some((format!("{layer}.{projection}"), true))
    };
    match (stack, module) {
        ("encoder", ["pre_attention_layer_norm", "scale"])
        | ("decoder", ["pre_self_attention_layer_norm", "scale"]) => Some(("0.layer_norm".into(), false)),
        ("decoder", ["pre_cross_attention_layer_norm", "scale"]) => Some(("1.layer_norm".into(), false)),
        (_, ["pre_mlp_layer_norm", "scale"]) => Some((format!("{mlp}.layer_norm"), false)),
        ("encoder", ["attention", projection, "kernel"])
        | ("decoder", ["self_attention", projection, "kernel"]) => attention("0.SelfAttention", projection),
        ("decoder", ["encoder_decoder_attention", projection, "kernel"]) => {
            attention("1.EncDecAttention", projection)
        }
        (_, ["mlp", linear @ ("wi" | "wi_0" | "wi_1" | "wo"), "kernel"]) => {
            Some((format!("{mlp}.DenseReluDense.{linear}"), true))
        }
        _ => None,
    }
}
