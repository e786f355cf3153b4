//! What a child predicts before it is trained.

use fusion_core::plan::{Fill, FusionPlan, Warning};
use serde::Serialize;

use super::Method;

/// A child's first predictions, as its plan promises them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// Logits are the weighted average of the parents'.
    Ensemble,
    /// Logits are those of the only parent.
    Parent,
    /// Exact except for the noise in the cross-connections.
    Noisy,
    /// RMSNorm normalises the parents' slices together, so logits only approximate the average of the
    /// parents'.
    Rule,
    /// Different from the parent's: copied blocks repeat what their originals do.
    Other,
}

impl Promise {
    /// What the plan of a T5 promises. `None` if the method is unknown.
    pub fn of(plan: &FusionPlan) -> Option<Promise> {
        Some(Method::named(&plan.method)?.promise(plan))
    }

    /// The promise of a direct sum that is `exact` under the property and without noise.
    pub(super) fn of_sum(plan: &FusionPlan, exact: Promise) -> Promise {
        if plan.warnings().contains(&Warning::InexactNormalisation) {
            Promise::Rule
        } else if plan.cross() != Fill::Zero {
            Promise::Noisy
        } else {
            exact
        }
    }

    /// Whether the predictions equal the promised ones up to rounding.
    pub fn is_exact(self) -> bool {
        matches!(self, Promise::Ensemble | Promise::Parent)
    }
}
