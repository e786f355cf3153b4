//! What the project is built, checked, measured and packed with.

pub mod bench;
pub mod build;
pub mod bundle;
pub mod ci;
pub mod conformance;
pub mod feature;
mod libtorch;
pub mod resources;
pub mod setup;
