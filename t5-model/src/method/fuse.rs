//! `fuse`, the paper's method (arXiv 2306.11903): which T5s can be fused, and what the child is. Under the property, without
//! noise in the cross-connections, the child is the ensemble of its parents; under the rule it is close to it.

use std::path::PathBuf;

use fusion_core::{DirectSum, FusionPlan, Normalisation, Part, direct_sum};

use super::depth::child_layers;
use crate::{DepthAlignment, Error, Result, T5Config};

/// A model to fuse.
#[derive(Clone, Debug)]
pub struct FusionParent {
    /// A name for texts.
    pub label: String,
    pub config: T5Config,
    /// The hash of its weights, where known.
    pub blake3: Option<String>,
    /// Where it comes from, for messages.
    pub path: PathBuf,
}

/// The plan of fusing T5s, parents with fewer blocks aligned by `depth`. What its child looks like, [`child_config`]
/// says.
pub fn fusion_plan(
    parents: &[FusionParent],
    options: &DirectSum,
    depth: DepthAlignment,
) -> Result<FusionPlan> {
    for parent in parents.iter().skip(1) {
        compatible(&parents[0], parent)?;
    }
    let layers = child_layers(parents.iter().map(|parent| &parent.config));
    let tables =
        parents.iter().map(|parent| depth.table(&parent.config, layers)).collect::<Result<Vec<_>>>()?;
    let parts: Vec<_> = parents
        .iter()
        .zip(&tables)
        .map(|(parent, table)| Part {
            label: &parent.label,
            blake3: parent.blake3.as_deref(),
            table,
            embed_groups: &parent.config.rms_norm_groups,
        })
        .collect();
    Ok(direct_sum(&parts, options)?)
}

/// The configuration of the fused model: the first parent's with the sums of the widths, and the
/// largest numbers of blocks.
pub fn child_config(parents: &[FusionParent], normalisation: Normalisation) -> Result<T5Config> {
    let configs = || parents.iter().map(|parent| &parent.config);
    let mut child = configs().next().cloned().ok_or_else(|| Error::Fusion("there are no parents".into()))?;
    child.d_model = configs().map(|config| config.d_model).sum();
    child.num_heads = configs().map(|config| config.num_heads).sum();
    child.d_ff = configs().map(|config| config.d_ff).sum();
    child.d_kv = configs().map(|config| config.d_kv).max().unwrap_or(child.d_kv);
    let [encoder, decoder] = child_layers(configs());
    child.num_layers = encoder;
    child.set_num_decoder_layers(decoder);
    child.rms_norm_groups = match normalisation {
        Normalisation::Property if parents.len() > 1 => configs().flat_map(T5Config::norm_groups).collect(),
        Normalisation::Property => child.rms_norm_groups,
        Normalisation::Rule => Vec::new(),
    };
    child.validate()?;
    Ok(child)
}

/// Whatever a table of sizes does not show, and what it shows later or in less words.
fn compatible(first: &FusionParent, other: &FusionParent) -> Result<()> {
    let (a, b) = (&first.config, &other.config);
    let checks: [(&str, String, String, &str); 7] = [
        ("feed_forward_proj", format!("{:?}", a.feed_forward_proj), format!("{:?}", b.feed_forward_proj), ""),
        (
            "vocab_size",
            a.vocab_size.to_string(),
            b.vocab_size.to_string(),
            "train both with the same tokenizer and padding",
        ),
        (
            "relative_attention_num_buckets",
            a.relative_attention_num_buckets.to_string(),
            b.relative_attention_num_buckets.to_string(),
            "",
        ),
        (
            "relative_attention_max_distance",
            a.relative_attention_max_distance.to_string(),
            b.relative_attention_max_distance.to_string(),
            "",
        ),
        ("layer_norm_epsilon", a.layer_norm_epsilon.to_string(), b.layer_norm_epsilon.to_string(), ""),
        ("a tied output head", a.tied_head().to_string(), b.tied_head().to_string(), ""),
        ("scaled logits", a.scale_logits().to_string(), b.scale_logits().to_string(), ""),
    ];
    for (key, ours, theirs, advice) in checks {
        if ours != theirs {
            let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
            return Err(Error::Fusion(format!(
                "{key} is {ours} in {} and {theirs} in {}{advice}",
                first.label, other.label
            )));
        }
    }
    Ok(())
}
