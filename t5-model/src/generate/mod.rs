//! Answers of a trained model: greedy decoding, sampling and beam search, and the likelihood of given
//! answers.

mod beams;
mod continuation;
mod decoder;
mod decoding;
mod packing;
mod rank;
mod rules;
mod sampling;
mod settings;

use self::continuation::Drawing;
use self::decoding::Strategy;
use crate::model::T5;
use crate::{Batch, Ops};

pub use decoding::{Answer, Decoding};
pub use rules::Rules;
pub use sampling::Sampling;
pub use settings::{GENERATION_CONFIG, GenerationSettings};

pub(crate) use continuation::generate;
pub(crate) use packing::Packing;
pub(crate) use rank::{Candidates, log_likelihoods};

/// `[row][answer]`. Draws depend on the number of the batch's first input.
pub(crate) fn answers<O: Ops>(
    model: &T5<'_, O>,
    batch: &Batch,
    how: &Decoding,
    first_input: u64,
) -> Vec<Vec<Answer>> {
    let Decoding { answers, seed, .. } = *how;
    let rows = match how.strategy() {
        Strategy::Beams { length_penalty } => return beams::search(model, batch, how, length_penalty),
        Strategy::Greedy => continuation::greedy(model, batch, how),
        Strategy::Sampling(sampling) => {
            let drawing = Drawing { sampling, seed, first_input, answers };
            continuation::sample(model, batch, how, &drawing)
        }
    };
    rows.chunks(answers).map(<[Answer]>::to_vec).collect()
}
