//! `fuse`, the paper's method (arXiv 2306.11903): which T5s can be fused, and what the child is. Under the
//! property, without noise in the cross-connections, the child is the ensemble of its parents; under the rule
//! it approximates it.

use fusion_core::grow::{DirectSum, direct_sum};
use fusion_core::plan::{FusionPlan, Normalisation};
use serde_json::{Value, json};

use super::depth::child_layers;
use super::refusal::check_compatible;
use super::{
    DepthAlignment, FusionParent, Grown, GrowthMethod, MethodSettings, Paper, Promise, Recorded, first,
};
use crate::parameters::{Module, with_plain_head};
use crate::{Result, T5Config};

/// The method's options.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fuse {
    /// Normalisation, cross-connections, and the weights of the average.
    pub sum: DirectSum,
    /// Aligns parents with fewer blocks than the child.
    pub depth: DepthAlignment,
}

impl GrowthMethod for Fuse {
    const NAME: &'static str = "fuse";
    const PAPER: Paper = Paper { name: "Deep Fusion", url: "https://arxiv.org/abs/2306.11903" };
    const SUMMARY: &'static str = "Deep Fusion: the child is the ensemble of its parents (arXiv 2306.11903)";
    const JOINS: bool = true;
    const OPTIONS: &'static [&'static str] =
        &["norm", "cross", "direction", "times", "weights", "depth", "optimizer"];

    fn from_settings(settings: &MethodSettings) -> Self {
        Fuse { sum: settings.direct_sum(), depth: settings.depth.unwrap_or_default() }
    }

    fn copies(settings: &MethodSettings) -> usize {
        settings.times.unwrap_or(1)
    }

    fn recorded(settings: &MethodSettings, plan: &FusionPlan) -> Recorded {
        let is_shallow = plan.params.iter().any(|param| !param.absent.is_empty());
        let depth = is_shallow.then(|| json!(settings.depth.unwrap_or_default()));
        vec![("depth", depth), ("weights", settings.weights.clone().map(Value::from))]
    }

    fn promise(plan: &FusionPlan) -> Promise {
        Promise::of_sum(plan, Promise::Ensemble)
    }

    fn plan(&self, parents: &[FusionParent]) -> Result<Grown> {
        Ok(Grown { plan: self.sum(parents)?, child: self.child(parents)? })
    }
}

impl Fuse {
    fn sum(&self, parents: &[FusionParent]) -> Result<FusionPlan> {
        check_compatible(parents)?;
        let layers = child_layers(parents.iter().map(|parent| &parent.config));
        let mixed = heads_differ(parents);
        let table = |parent: &FusionParent| {
            let table = self.depth.table(&parent.config, layers)?;
            if mixed { with_plain_head(&table, &parent.config) } else { Ok(table) }
        };
        let tables = parents.iter().map(table).collect::<Result<Vec<_>>>()?;
        let parts: Vec<_> = parents.iter().zip(&tables).map(|(parent, table)| parent.part(table)).collect();
        let mut plan = direct_sum(&parts, &self.sum)?;
        if mixed {
            let embedding = Module::Embedding.weight();
            // A tied embedding's gradient is the sum of those of two of the child's parameters.
            let places = plan.params.iter_mut().flat_map(|param| &mut param.placements);
            let tied = places.filter(|place| {
                let parent = parents.get(place.parent);
                place.source == embedding && parent.is_some_and(|parent| parent.config.tied_head())
            });
            tied.for_each(|place| place.gradient = None);
        }
        Ok(plan)
    }

    /// The configuration of the fused model: the first parent's, with the widths summed and the maximum
    /// numbers of blocks.
    fn child(&self, parents: &[FusionParent]) -> Result<T5Config> {
        let configs = || parents.iter().map(|parent| &parent.config);
        let mut child = first(parents)?.config.clone();
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
        child.rms_norm_groups = match self.sum.normalisation {
            Normalisation::Property if parents.len() > 1 => {
                configs().flat_map(T5Config::norm_groups).collect()
            }
            Normalisation::Property => child.rms_norm_groups,
            Normalisation::Rule => Vec::new(),
        };
        child.validate()?;
        Ok(child)
    }
}

/// Whether the parents compute logits in different ways: with the embedding or a separate head, from scaled
/// outputs or not. The child then has a separate head that sees unscaled outputs, which can represent all of
/// them.
fn heads_differ(parents: &[FusionParent]) -> bool {
    let heads = || parents.iter().map(|parent| (parent.config.tied_head(), parent.config.scale_logits()));
    heads().zip(heads().skip(1)).any(|(a, b)| a != b)
}
