use fusion_core::grow::Shares;
use fusion_core::plan::FusionPlan;

use super::net2net::recorded_widths;
use super::{FusionParent, Grown, GrowthMethod, MethodSettings, Net2Net, Paper, Promise, Recorded, Widths};
use crate::Result;

/// The method's options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lemon {
    /// The sizes to grow to.
    pub widths: Widths,
    /// Seed for the choice of features and the shares.
    pub seed: u64,
}

impl GrowthMethod for Lemon {
    const NAME: &'static str = "lemon";
    const PAPER: Paper = Paper { name: "LEMON", url: "https://arxiv.org/abs/2310.07999" };
    const SUMMARY: &'static str = "LEMON: like net2net, but with unequal shares, so that copies diverge without noise; \
                                   keeps the predictions (arXiv 2310.07999)";
    /// Optimiser states cannot be carried over: the shares differ from sum to sum, and a gradient combines
    /// several.
    const OPTIONS: &'static [&'static str] = &["d_model", "num_heads", "d_ff"];

    fn from_settings(settings: &MethodSettings) -> Self {
        Lemon { widths: settings.widths(), seed: settings.seed }
    }

    fn recorded(settings: &MethodSettings, _: &FusionPlan) -> Recorded {
        recorded_widths(settings)
    }

    fn promise(_: &FusionPlan) -> Promise {
        Promise::Parent
    }

    fn plan(&self, parents: &[FusionParent]) -> Result<Grown> {
        let Lemon { widths, seed } = *self;
        Net2Net { widths, seed, noise: None }.widened(Self::NAME, parents, Shares::Unequal { seed })
    }
}
