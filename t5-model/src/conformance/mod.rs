//! What every backend must agree in.

mod plans;

pub use plans::{FusionCase, digest, fusion_cases, plan_execution};

/// What was compared, and how far apart it was at worst.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Check {
    pub name: String,
    /// The largest deviation, relative to the largest expected value.
    pub worst: f64,
    pub allowed: f64,
}

impl Check {
    pub fn passed(&self) -> bool {
        self.worst <= self.allowed
    }
}
