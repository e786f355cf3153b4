//! Turns panics of frameworks into errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::SessionError;

/// Runs something on a device and turns a framework's panic (out of memory, a lost device) into an error.
pub fn guarded<T>(run: impl FnOnce() -> Result<T, SessionError>) -> Result<T, SessionError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        let message = message.unwrap_or_else(|| "it gave no reason".into());
        match out_of_memory(&message) {
            Some(said) => Err(SessionError::OutOfMemory(said)),
            None => Err(SessionError::Device(message)),
        }
    })
}

/// The part of a message that reports exhausted memory, in the form libtorch gives it: `CUDA out of memory.
/// Tried to allocate 256.00 MiB. GPU 0 has …`.
fn out_of_memory(message: &str) -> Option<String> {
    let line = message.lines().find(|line| line.to_ascii_lowercase().contains("out of memory"))?;
    let start = line.find("CUDA out of memory").unwrap_or(0);
    let mut sentences = line[start..].split(". ");
    let said: Vec<&str> = sentences.by_ref().take(2).collect();
    Some(said.join(". ").trim_end_matches('.').trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhausted_memory_is_told_apart() {
        let said = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 256.00 MiB. GPU 0 \
                    has a total capacity of 79.18 GiB\\nException raised from malloc\")";
        let error = guarded(|| -> Result<(), _> { panic!("{said}") }).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with(
                "the device's memory does not suffice (CUDA out of memory. Tried to allocate 256.00 MiB);"
            ),
            "{message}"
        );
        let error = guarded(|| -> Result<(), _> { panic!("the cable is out") }).unwrap_err();
        assert_eq!(error.to_string(), "the device failed: the cable is out");
    }
}
