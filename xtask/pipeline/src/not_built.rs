//! Parts of this crate that are compiled only with the feature they are named after.

use glue_eval::GlueError;

/// What was asked for needs features this crate was built without. A program that can rebuild itself may do
/// so and start over.
#[derive(Clone, Debug, thiserror::Error)]
#[error("this program was built without {}", features.join(" and "))]
pub struct NotBuilt {
    /// The missing features, as named in this crate's `Cargo.toml`.
    pub features: Vec<&'static str>,
}

impl NotBuilt {
    /// Finds this reason in an error's causes.
    pub fn cause_of(error: &anyhow::Error) -> Option<NotBuilt> {
        error.chain().find_map(|cause| match cause.downcast_ref() {
            Some(not_built) => Some(NotBuilt::clone(not_built)),
            None => match cause.downcast_ref() {
                Some(GlueError::NoParquet { .. }) => Some(NotBuilt { features: vec!["parquet"] }),
                _ => None,
            },
        })
    }
}

/// Fails if any of these features is off; `is_built` is its `cfg!`.
pub(crate) fn require(features: &[(&'static str, bool)]) -> Result<(), NotBuilt> {
    let missing = features.iter().filter(|(_, is_built)| !is_built).map(|(name, _)| *name);
    match missing.collect::<Vec<_>>() {
        features if features.is_empty() => Ok(()),
        features => Err(NotBuilt { features }),
    }
}
