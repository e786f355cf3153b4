//! Processes that compute together.

pub mod launch;
mod place;

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use pipeline::NotBuilt;
use t5_model::backend::{self, Collective, GroupOptions, ProcessGroup, Rendezvous};

pub use place::Place;

/// The place of this process; set once, before any work.
static PLACE: OnceLock<Option<Place>> = OnceLock::new();

/// Finds out which of several processes this is.
pub fn find() -> Result<()> {
    let place = Place::of_this_process()?;
    PLACE.get_or_init(|| place);
    Ok(())
}

/// The place of this process, if it is one of several.
pub fn place() -> Option<&'static Place> {
    PLACE.get().and_then(Option::as_ref)
}

/// Whether this process talks to the user: one alone, or rank 0.
pub fn is_first() -> bool {
    place().is_none_or(|place| place.rank == 0)
}

/// What processes exchange over.
pub fn collective() -> Result<&'static dyn Collective> {
    backend::collective().ok_or_else(|| {
        let needs = "processes compute together over torch's own c10d, which comes with the backend tch";
        anyhow::Error::new(NotBuilt { features: vec!["tch"] }).context(needs)
    })
}

/// Meets the other processes.
pub fn join(place: &Place, options: GroupOptions) -> Result<Arc<dyn ProcessGroup>> {
    // Each of them would build what is missing.
    let collective = match collective() {
        Err(missing) if !is_first() => bail!("{missing}"),
        found => found?,
    };
    let Place { rank, world_size, address, port, store_is_served, prefix, .. } = place.clone();
    let rendezvous = Rendezvous { address, port, store_is_served, prefix, rank, world_size, options };
    collective.join(&rendezvous).context("the processes have not met")
}
