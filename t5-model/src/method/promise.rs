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
    /// Logits are the only parent's.
    Parent,
    /// They would be if there were no noise in the cross-connections.
    Noisy,
    /// RMSNorm takes the parents' slices together, so logits are only near the average of the parents'.
    Rule,
    /// Other than the parent's: copies of blocks do again what was done.
    Other,
}

impl Promise {
    /// What the plan of a T5 promises. `None` for one of no known method.
    pub fn of(plan: &FusionPlan) -> Option<Promise> {
        Some(Method::named(&plan.method)?.promise(plan))
    }

    /// What a direct sum promises that is `exact` under the property and without noise.
    pub(super) fn of_sum(plan: &FusionPlan, exact: Promise) -> Promise {
        if plan.warnings().contains(&Warning::InexactNormalisation) {
            Promise::Rule
        } else if plan.cross() != Fill::Zero {
            Promise::Noisy
        } else {
            exact
        }
    }

    /// Whether they are what is promised to rounding.
    pub fn is_exact(self) -> bool {
        matches!(self, Promise::Ensemble | Promise::Parent)
    }
}
