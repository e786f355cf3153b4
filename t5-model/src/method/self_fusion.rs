use fusion_core::grow::DirectSum;
use fusion_core::plan::FusionPlan;

use super::{Fuse, FusionParent, Grown, GrowthMethod, MethodSettings, Paper, Promise, Recorded, first};
use crate::Result;

/// The method's options.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfFusion {
    /// How many times the model is used.
    pub times: usize,
    /// Normalisation and cross-connections.
    pub sum: DirectSum,
}

impl GrowthMethod for SelfFusion {
    const NAME: &'static str = "self";
    const PAPER: Paper = Fuse::PAPER;
    const SUMMARY: &'static str = "Deep Fusion of a model with itself";
    const OPTIONS: &'static [&'static str] = &["norm", "cross", "direction", "times", "optimizer"];

    fn from_settings(settings: &MethodSettings) -> Self {
        SelfFusion { times: settings.times(), sum: settings.direct_sum() }
    }

    fn copies(settings: &MethodSettings) -> usize {
        settings.times()
    }

    fn recorded(_: &MethodSettings, _: &FusionPlan) -> Recorded {
        Vec::new()
    }

    fn promise(plan: &FusionPlan) -> Promise {
        Promise::of_sum(plan, Promise::Parent)
    }

    fn plan(&self, parents: &[FusionParent]) -> Result<Grown> {
        let fuse = Fuse { sum: self.sum.clone(), ..Fuse::default() };
        fuse.plan(&vec![first(parents)?.clone(); self.times])
    }
}
