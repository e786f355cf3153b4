//! A comparison, and whether it passed.

use crate::backend::guarded;
use crate::{Error, Result, SessionError};

/// A comparison and its largest deviation.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// The largest deviation, relative to the largest expected value.
    pub worst: f64,
    /// The largest deviation that passes.
    pub allowed: f64,
    /// The message of a device that failed or panicked; the deviation is infinite then.
    pub failure: Option<String>,
}

impl Check {
    /// Runs a check that returns its largest deviation. If the device fails, the suite continues, so that an
    /// author sees how far a new backend gets.
    pub(super) fn run(
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

    /// Whether the deviation is allowed.
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
