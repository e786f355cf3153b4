use fusion_core::grow::{Shares, Widen, copies_up_to, widen};
use fusion_core::plan::{FusionPlan, StandardDeviation};
use fusion_core::table::Axis;
use serde_json::{Value, json};

use super::{FusionParent, Grown, GrowthMethod, MethodSettings, Paper, Promise, Recorded, Widths, first};
use crate::{Result, parameter_table};

/// The method's options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Net2Net {
    /// The sizes to grow to.
    pub widths: Widths,
    /// Seed for the choice of features.
    pub seed: u64,
    /// Noise that makes copies differ, and its seed.
    pub noise: Option<(StandardDeviation, u64)>,
}

impl GrowthMethod for Net2Net {
    const NAME: &'static str = "net2net";
    const ALIASES: &'static [&'static str] = &["bert2bert"];
    const PAPER: Paper = Paper { name: "Net2Net", url: "https://arxiv.org/abs/1511.05641" };
    const SUMMARY: &'static str = "Net2Net, bert2BERT: copies features, to any number of heads and any d_ff; keeps the \
                                   predictions (arXiv 1511.05641, 2110.07143)";
    const OPTIONS: &'static [&'static str] = &["cross", "d_model", "num_heads", "d_ff", "optimizer"];

    fn from_settings(settings: &MethodSettings) -> Self {
        Net2Net { widths: settings.widths(), seed: settings.seed, noise: settings.noise() }
    }

    fn recorded(settings: &MethodSettings, _: &FusionPlan) -> Recorded {
        recorded_widths(settings)
    }

    /// The noise cancels.
    fn promise(_: &FusionPlan) -> Promise {
        Promise::Parent
    }

    fn plan(&self, parents: &[FusionParent]) -> Result<Grown> {
        self.widened(Self::NAME, parents, Shares::Equal)
    }
}

/// The given sizes, and the seed for the choice of features.
pub(super) fn recorded_widths(settings: &MethodSettings) -> Recorded {
    vec![
        ("d_model", settings.d_model.map(Value::from)),
        ("num_heads", settings.num_heads.map(Value::from)),
        ("d_ff", settings.d_ff.map(Value::from)),
        ("seed", Some(json!(settings.seed))),
    ]
}

impl Net2Net {
    /// The child with these shares, for a method that grows as this one does.
    pub(super) fn widened(&self, method: &str, parents: &[FusionParent], shares: Shares) -> Result<Grown> {
        let parent = first(parents)?;
        let sizes = self.widths.resolve(method, parent)?;
        let axes = [Axis::Embed, Axis::Heads, Axis::Mlp].into_iter().zip(sizes);
        let axes = axes.map(|(axis, (own, wanted))| copies_up_to(axis, own, wanted, self.seed)).collect();
        let [d_model, num_heads, d_ff] = sizes.map(|(_, wanted)| wanted);
        let mut child = parent.config.clone();
        (child.d_model, child.num_heads, child.d_ff) = (d_model, num_heads, d_ff);
        let table = parameter_table(&parent.config)?;
        let options = Widen { axes, shares, noise: self.noise };
        Grown::new(widen(&parent.part(&table), &options)?, child)
    }
}
