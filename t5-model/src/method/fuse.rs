//! `fuse`, the paper's method (arXiv 2306.11903): which T5s can be fused, and what the child is. Under the property, without
//! noise in the cross-connections, the child is the ensemble of its parents; under the rule it is close to it.

use std::path::PathBuf;

use fusion_core::grow::{DirectSum, Part, direct_sum};
use fusion_core::plan::{FusionPlan, Normalisation};

use super::depth::child_layers;
use super::refusal::check_compatible;
use crate::parameters::{Module, with_plain_head};
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
    check_compatible(parents)?;
    let layers = child_layers(parents.iter().map(|parent| &parent.config));
    let mixed = heads_differ(parents);
    let table = |parent: &FusionParent| {
        let table = depth.table(&parent.config, layers)?;
        if mixed { with_plain_head(&table, &parent.config) } else { Ok(table) }
    };
    let tables = parents.iter().map(table).collect::<Result<Vec<_>>>()?;
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
    let mut plan = direct_sum(&parts, options)?;
    if mixed {
        let embedding = Module::Embedding.weight();
        // A tied embedding's derivative is the sum of two of the child's.
        let places = plan.params.iter_mut().flat_map(|param| &mut param.placements);
        let tied = places.filter(|place| {
            let parent = parents.get(place.parent);
            place.source == embedding && parent.is_some_and(|parent| parent.config.tied_head())
        });
        tied.for_each(|place| place.gradient = None);
    }
    Ok(plan)
}

/// Whether logits come about in more than one way: by the embedding or by a head of its own, from scaled outputs or not. The
/// child then has a head of its own that sees the outputs as they are, which can compute what each of them does.
fn heads_differ(parents: &[FusionParent]) -> bool {
    let heads = || parents.iter().map(|parent| (parent.config.tied_head(), parent.config.scale_logits()));
    heads().zip(heads().skip(1)).any(|(a, b)| a != b)
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
    if heads_differ(parents) {
        child = child.with_tied_and_scaled_head(false);
    }
    child.rms_norm_groups = match normalisation {
        Normalisation::Property if parents.len() > 1 => configs().flat_map(T5Config::norm_groups).collect(),
        Normalisation::Property => child.rms_norm_groups,
        Normalisation::Rule => Vec::new(),
    };
    child.validate()?;
    Ok(child)
}
