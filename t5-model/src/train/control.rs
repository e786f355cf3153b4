//! Whether training goes on, and who does what only one process may do.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{GroupError, ProcessGroup};

/// What a training is told by its caller while it runs, and with which processes it trains. All processes of a group
/// decide alike.
#[derive(Clone)]
pub struct Control<'a> {
    stop: &'a AtomicBool,
    group: Option<Arc<dyn ProcessGroup>>,
}

impl<'a> Control<'a> {
    /// One process, which is to stop once this is set.
    pub fn alone(stop: &'a AtomicBool) -> Self {
        Control { stop, group: None }
    }

    /// One process of a group, which is to stop once this is set in any.
    pub fn new(stop: &'a AtomicBool, group: Option<Arc<dyn ProcessGroup>>) -> Self {
        Control { stop, group }
    }

    /// The processes that train, if there are several.
    pub fn group(&self) -> Option<&Arc<dyn ProcessGroup>> {
        self.group.as_ref()
    }

    /// Whether this process writes files: one alone, or rank 0.
    pub fn writes(&self) -> bool {
        self.group.as_ref().is_none_or(|group| group.is_first())
    }

    /// Whether any process is to stop.
    ///
    /// # Errors
    /// See [`ProcessGroup::all_reduce`].
    pub fn stopped(&self) -> Result<bool, GroupError> {
        self.stopped_or(false).map(|(stopped, _)| stopped)
    }

    /// Whether any process is to stop, and whether anything else is so in any.
    pub(super) fn stopped_or(&self, other: bool) -> Result<(bool, bool), GroupError> {
        let stopped = self.stop.load(Ordering::Relaxed);
        let Some(group) = &self.group else { return Ok((stopped, other)) };
        let flags = group.any(u8::from(stopped) | u8::from(other) << 1)?;
        Ok((flags & 1 != 0, flags & 2 != 0))
    }

    /// What the process computes that writes files; the others wait for it.
    ///
    /// # Errors
    /// On the process that computes its own, on the others what that says; or see [`ProcessGroup::all_reduce`].
    pub fn first<T, E>(&self, compute: impl FnOnce() -> Result<T, E>) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<GroupError> + Display,
    {
        match &self.group {
            None => compute(),
            Some(group) => group.from_first(compute),
        }
    }
}
