//! Answers of a trained model: greedy decoding, and the likelihood of given answers.

mod decoder;
mod decoding;
mod greedy;
mod packing;
mod rank;
mod settings;

pub use decoding::Decoding;
pub(crate) use greedy::generate;
pub(crate) use packing::Packing;
pub(crate) use rank::{Candidates, log_likelihoods};
pub use settings::{GENERATION_CONFIG, GenerationSettings};
