use fusion_core::grow::{Shares, Widen, whole_copies, widen};
use fusion_core::plan::{FusionPlan, StandardDeviation};
use fusion_core::table::Axis;
use serde_json::json;

use super::{FusionParent, Grown, GrowthMethod, MethodSettings, Paper, Promise, Recorded, first};
use crate::{Result, parameter_table};

/// The method's options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HyperClone {
    /// The factor by which every width grows.
    pub times: usize,
    /// The noise, and its seed.
    pub noise: Option<(StandardDeviation, u64)>,
}

impl GrowthMethod for HyperClone {
    const NAME: &'static str = "hyperclone";
    const PAPER: Paper = Paper { name: "HyperCloning", url: "https://arxiv.org/abs/2409.12903" };
    const SUMMARY: &'static str =
        "HyperCloning: multiplies all widths by N; keeps the predictions (arXiv 2409.12903)";
    const OPTIONS: &'static [&'static str] = &["cross", "times", "optimizer"];

    fn from_settings(settings: &MethodSettings) -> Self {
        HyperClone { times: settings.times(), noise: settings.noise() }
    }

    fn recorded(settings: &MethodSettings, _: &FusionPlan) -> Recorded {
        vec![("times", Some(json!(settings.times())))]
    }

    /// The noise cancels.
    fn promise(_: &FusionPlan) -> Promise {
        Promise::Parent
    }

    fn plan(&self, parents: &[FusionParent]) -> Result<Grown> {
        let parent = first(parents)?;
        let table = parameter_table(&parent.config)?;
        let mut child = parent.config.clone();
        let copies = |axis, size: &mut usize| {
            let widening = whole_copies(axis, *size, self.times);
            *size = size.saturating_mul(self.times);
            widening
        };
        let axes = vec![
            copies(Axis::Embed, &mut child.d_model),
            copies(Axis::Heads, &mut child.num_heads),
            copies(Axis::Mlp, &mut child.d_ff),
        ];
        let options = Widen { axes, shares: Shares::Equal, noise: self.noise };
        Grown::new(widen(&parent.part(&table), &options)?, child)
    }
}
