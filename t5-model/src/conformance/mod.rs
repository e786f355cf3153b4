//! What every backend must agree in: [`suite`] runs all of it. References come from PyTorch and transformers, in files that
//! lie in this crate's sources, beside the scripts that made them, or where [`set_references`] says.

mod answers;
mod attention;
mod by_hand;
mod models;
mod operations;
mod plans;
mod references;
mod training;

pub use operations::operations;
pub use plans::{fused_models, plan_execution};
pub use references::{REFERENCES, set_references};

use fusion_core::random::Philox;
use fusion_core::{HostTensors, TensorSource};

use crate::backend::guarded;
use crate::{Backend, Computation, Error, Result, Session, SessionError, T5Config, initialize};

/// Everything: operations, whole models, fused models, training, and, as plans are f32 in any case, executing these.
///
/// # Errors
/// What keeps the suite from going on; a check that does not pass is no error, whatever the device did.
pub fn suite(backend: &dyn Backend, how: &Computation) -> Result<Vec<Check>, SessionError> {
    let suite = Suite { backend, how };
    let mut checks = backend.check_operations(how)?;
    checks.extend(suite.models()?);
    checks.extend(suite.fusions()?);
    checks.extend(suite.training()?);
    checks.extend(plan_execution(backend.plan_device(&how.device)?.as_ref())?);
    Ok(checks)
}

/// A backend that is checked.
struct Suite<'a> {
    backend: &'a dyn Backend,
    how: &'a Computation,
}

impl Suite<'_> {
    fn open(&self, config: &T5Config, weights: &dyn TensorSource) -> Result<Box<dyn Session>, SessionError> {
        self.backend.open(self.how, config, weights)
    }
}

/// Random weights, with gains that are not all 1, as they are before a training.
pub fn random_weights(config: &T5Config, seed: u64) -> Result<HostTensors> {
    let mut weights = initialize(config, seed)?;
    for (name, tensor) in weights.iter_mut().filter(|(name, _)| name.ends_with("layer_norm.weight")) {
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
    /// What the device said, if it failed or panicked. The deviation is infinite then.
    pub failure: Option<String>,
}

impl Check {
    /// Runs a check, given as its worst deviation. If the device fails in it, the suite goes on: its author sees how far it
    /// comes.
    fn run(
        name: impl Into<String>,
        allowed: f64,
        run: impl FnOnce() -> Result<f64, SessionError>,
    ) -> Result<Check, SessionError> {
        use SessionError::{Device, Model, NonFinite};
        let (worst, failure) = match guarded(run) {
            Ok(worst) => (worst, None),
            Err(Device(message)) => (f64::INFINITY, Some(message)),
            Err(error @ (NonFinite { .. } | Model(Error::Core(fusion_core::Error::Device { .. })))) => {
                (f64::INFINITY, Some(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        Ok(Check { name: name.into(), worst, allowed, failure })
    }

    pub fn passed(&self) -> bool {
        self.worst <= self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_does_is_a_failed_check() {
        let check = |run: fn() -> Result<f64, SessionError>| Check::run("a check", 1.0, run);
        let failure = |run| {
            let check = check(run).unwrap();
            assert!(!check.passed());
            check.failure.unwrap()
        };
        assert_eq!(failure(|| todo!("attention")), "not yet implemented: attention");
        assert_eq!(failure(|| Err(SessionError::Device("it is lost".into()))), "it is lost");
        assert!(!check(|| Ok(f64::NAN)).unwrap().passed());
        assert!(check(|| Ok(1.0)).unwrap().passed());
        assert!(check(|| Err(Error::References("a file is missing".into()).into())).is_err());
    }
}
