//! Panics of frameworks as errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::SessionError;

/// Runs something on a device; a framework's panic (out of memory, a lost device) becomes an error.
pub fn guarded<T>(run: impl FnOnce() -> Result<T, SessionError>) -> Result<T, SessionError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(SessionError::Device(message.unwrap_or_else(|| "it gave no reason".into())))
    })
}
