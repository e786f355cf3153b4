//! Commands for building, checking, benchmarking and packing the project.

pub mod bench;
pub mod build;
pub mod bundle;
pub mod ci;
pub mod conformance;
pub mod feature;
mod libtorch;
pub mod resources;
pub mod setup;
