//! Answers of a trained model: greedy decoding, and the likelihood of given answers.

mod decoder;
mod greedy;
mod packing;
mod rank;

pub(crate) use greedy::generate;
pub(crate) use packing::Packing;
pub(crate) use rank::{Candidates, log_likelihoods};
