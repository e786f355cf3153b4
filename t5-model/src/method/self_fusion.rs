//! `self`: Deep Fusion of a model with itself (arXiv 2306.11903, Section 3.2). Preserves the function, under the rule too,
//! as long as the cross-connections are zero; then both halves get equal gradients, and noise is needed to tell them
//! apart.

use fusion_core::grow::DirectSum;

use super::{DepthAlignment, FusionParent, Grown, Method, child_config, fusion_plan};
use crate::Result;

/// A model fused with itself, taken so many times.
pub fn self_fusion(parent: &FusionParent, times: usize, options: &DirectSum) -> Result<Grown> {
    let parents = vec![parent.clone(); times];
    let mut plan = fusion_plan(&parents, options, DepthAlignment::default())?;
    plan.method = Method::SelfFusion.name().into();
    Ok(Grown { plan, child: child_config(&parents, options.normalisation)? })
}
