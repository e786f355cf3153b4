//! What every backend must agree in.

mod plans;

pub use plans::{FusionCase, digest, fusion_cases, plan_execution};

use fusion_core::{HostTensors, Philox};

use crate::{Result, T5Config, initialize};

/// Random weights, with gains that are not all 1, as they are before a training.
pub fn random_weights(config: &T5Config, seed: u64) -> Result<HostTensors> {
    let mut weights = initialize(config, seed)?;
    for (name, tensor) in weights.0.iter_mut().filter(|(name, _)| name.ends_with("layer_norm.weight")) {
        let gains = Philox::new(seed, &format!("gains of {name}"));
        (0..).zip(&mut tensor.data).for_each(|(index, gain)| *gain = 0.5 + gains.uniform(index));
    }
    Ok(weights)
}

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
