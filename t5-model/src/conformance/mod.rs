//! What all backends must agree on; [`suite`] checks it. The references come from PyTorch and transformers.
//! They are files in `goldens`, next to the scripts that made them, or wherever [`set_references`] says.
//! Checks of operations name no backend; only [`suite`] does.

mod answers;
mod attention;
mod by_hand;
mod check;
mod models;
mod operations;
mod plans;
mod references;
mod threads;
mod training;

pub use attention::attention;
pub use check::Check;
pub use operations::operations;
pub use plans::{fused_models, plan_execution};
pub use references::{REFERENCES, set_references};
pub use threads::ThreadGroup;

use fusion_core::checkpoint::{Checkpoint, TensorFile};
use fusion_core::random::Philox;
use fusion_core::{HostTensors, TensorSource};

use crate::parameters::{Initialization, initialize, parameters};
use crate::{Backend, Computation, Precision, Result, Session, SessionError, T5Config};

/// Checks operations, whole models, fused models, training and the execution of plans (which is always f32).
///
/// # Errors
/// The references cannot be read, or the backend refuses the device. A failed check is not an error, whatever
/// the device did.
pub fn suite(backend: &dyn Backend, how: &Computation) -> Result<Vec<Check>, SessionError> {
    let suite = Suite { backend, how };
    let mut checks = backend.check_operations(how)?;
    checks.extend(suite.models()?);
    checks.extend(suite.fusions()?);
    checks.extend(suite.training()?);
    checks.extend(plan_execution(backend.plan_device(&how.device)?.as_ref())?);
    Ok(checks)
}

type Opened = Result<Box<dyn Session>, SessionError>;

/// The backend under test.
struct Suite<'a> {
    backend: &'a dyn Backend,
    how: &'a Computation,
}

impl Suite<'_> {
    /// Opens a model that transformers computed, and what it computed.
    fn golden(&self, variant: &str) -> Result<(impl Fn() -> Opened + Sync, TensorFile)> {
        let checkpoint = Checkpoint::open(&references::path(variant))?;
        let config = T5Config::of_checkpoint(&checkpoint)?;
        let reference = references::file(&format!("{variant}/reference.safetensors"))?;
        Ok((move || self.open(&config, &checkpoint), reference))
    }

    /// What may deviate in f32 or in bf16, whichever this is.
    fn allowed(&self, [f32, bf16]: [f64; 2]) -> f64 {
        match self.how.precision {
            Precision::F32 => f32,
            Precision::Bf16 => bf16,
        }
    }

    fn open(&self, config: &T5Config, weights: &dyn TensorSource) -> Opened {
        self.backend.open(self.how, config, weights)
    }
}

/// Random weights whose gains, unlike those of fresh weights, are not all 1.
pub fn random_weights(config: &T5Config, seed: u64) -> Result<HostTensors> {
    let mut weights = initialize(config, Initialization::T5, seed)?;
    for parameter in parameters(config)?.into_iter().filter(|parameter| parameter.module.is_norm()) {
        let name = parameter.spec.name;
        let Some(tensor) = weights.get_mut(&name) else { continue };
        let gains = Philox::new(seed, &format!("gains of {name}"));
        (0..).zip(&mut tensor.data).for_each(|(index, gain)| *gain = 0.5 + gains.uniform(index));
    }
    Ok(weights)
}
