//! Answers of a trained model: greedy decoding, and how likely given answers are.

mod decoder;
mod greedy;
mod packing;
mod rank;

pub(crate) use greedy::generate;
pub(crate) use packing::Packing;
pub(crate) use rank::{Candidates, log_likelihoods};
