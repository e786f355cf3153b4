//! Decoding token by token: the most likely ones, or drawn ones.

use rayon::prelude::*;

use super::decoder::whole_rows;
use super::decoding::{Answer, Decoding};
use super::rules::Context;
use super::sampling::{Draws, Sampling};
use crate::backend::kernels::logits::{log_sum_exp, most_likely};
use crate::model::T5;
use crate::{Batch, Ops};

/// Dropping ended rows copies the keys and values of the others, which takes about half as long as a step. So rows are dropped only once this share of them has ended.
const WORTH_FORGETTING: f64 = 0.25;

/// Chooses a token for an answer, `row · width + answer`, at a position, from its logits under the rules.
type Choose<'a> = dyn Fn(usize, usize, &[f32]) -> i32 + Sync + 'a;

/// How long answers may be and by which rules, how many there are to each row, and whether their log
/// probabilities are of interest.
struct Extent<'a> {
    how: &'a Decoding,
    width: usize,
    measured: bool,
}

/// Continues every row of a batch until it ends, has as many tokens as it may have, or `stop` accepts its
/// tokens. The token that ends it is not included.
pub(crate) fn generate<O: Ops>(
    model: &T5<'_, O>,
    batch: &Batch,
    how: &Decoding,
    stop: &dyn Fn(&[i32]) -> bool,
) -> Vec<Vec<i32>> {
    let choose = |_, _, logits: &[f32]| most_likely(logits);
    let answers = answer(model, batch, &Extent { how, width: 1, measured: false }, &choose, stop);
    answers.into_iter().map(|answer| answer.tokens).collect()
}

/// One answer to each row, of the most likely tokens.
pub(super) fn greedy<O: Ops>(model: &T5<'_, O>, batch: &Batch, how: &Decoding) -> Vec<Answer> {
    let choose = |_, _, logits: &[f32]| most_likely(logits);
    answer(model, batch, &Extent { how, width: 1, measured: true }, &choose, &|_| false)
}

/// What draws depend on besides the settings.
pub(super) struct Drawing {
    pub sampling: Sampling,
    pub seed: u64,
    /// The number of the batch's first input.
    pub first_input: u64,
    /// Answers to each row.
    pub answers: usize,
}

/// Answers of drawn tokens, `[row · answers]`.
pub(super) fn sample<O: Ops>(
    model: &T5<'_, O>,
    batch: &Batch,
    how: &Decoding,
    drawing: &Drawing,
) -> Vec<Answer> {
    let Drawing { sampling, seed, first_input, answers: width } = *drawing;
    let of_answer = |at| Draws::new(seed, first_input + (at / width) as u64, at % width);
    let draws: Vec<Draws> = (0..batch.size * width).map(of_answer).collect();
    let choose = |at: usize, position, logits: &[f32]| sampling.draw(logits, draws[at].fraction(position));
    answer(model, batch, &Extent { how, width, measured: true }, &choose, &|_| false)
}

fn log_probability(logits: &[f32], token: i32) -> f64 {
    logits.get(token as usize).map_or(f64::NEG_INFINITY, |logit| f64::from(*logit) - log_sum_exp(logits))
}

/// `[row · width]`.
fn answer<O: Ops>(
    model: &T5<'_, O>,
    batch: &Batch,
    extent: &Extent<'_>,
    choose: &Choose<'_>,
    stop: &dyn Fn(&[i32]) -> bool,
) -> Vec<Answer> {
    let T5 { ops, config, .. } = *model;
    let Extent { how, width, measured } = *extent;
    let (rules, max_new_tokens) = (&how.rules, how.limit());
    let ((start, ends), free) = (rules.bounds(config), rules.are_free());
    let mut answers = vec![Answer::default(); batch.size * width];
    if max_new_tokens == 0 {
        return answers;
    }
    let mut memory = model.start_decoder(batch, width);
    let mut remembered: Vec<usize> = (0..answers.len()).collect(); // answers, as `memory` has them
    let mut going: Vec<usize> = remembered.clone(); // places among these
    let mut ids = vec![start; answers.len()];
    for position in 0..max_new_tokens {
        let mut x = model.decode(&mut memory, &ids); // [remembered, 1, d_model]
        if going.len() < remembered.len() {
            x = ops.gather(&x, &whole_rows(&going, 1)); // [going, 1, d_model]
        }
        let logits = ops.read_activation(&ops.linear(&x, model.head())); // [going, 1, vocabulary]
        let chosen: Vec<(i32, f64)> = going
            .par_iter()
            .zip(logits.data.par_chunks(config.vocab_size))
            .map(|(place, logits)| {
                let at = remembered[*place];
                let token = if free {
                    choose(at, position, logits)
                } else {
                    let context = Context { start, tokens: &answers[at].tokens, ends, max_new_tokens };
                    let mut ruled = logits.to_vec();
                    rules.apply(&mut ruled, &context);
                    choose(at, position, &ruled)
                };
                (token, if measured { log_probability(logits, token) } else { 0.0 })
            })
            .collect();
        ids.fill(config.pad_token_id);
        let mut chosen = chosen.into_iter();
        going.retain(|&place| {
            let answer = &mut answers[remembered[place]];
            let Some((token, log_probability)) = chosen.next() else { return false };
            if ends.contains(&token) {
                answer.say(None, log_probability);
                return false;
            }
            answer.say(Some(token), log_probability);
            ids[place] = token;
            !stop(&answer.tokens)
        });
        if going.is_empty() {
            break;
        }
        let mut rows: Vec<usize> = going.iter().map(|place| place / width).collect();
        rows.dedup();
        let all = remembered.len() / width;
        if (all - rows.len()) as f64 >= WORTH_FORGETTING * all as f64 {
            let places: Vec<usize> = rows.iter().flat_map(|row| row * width..(row + 1) * width).collect();
            memory.reorder(ops, &rows, &places);
            going.iter_mut().for_each(|place| *place = places.partition_point(|kept| kept < place));
            (remembered, ids) = places.into_iter().map(|place| (remembered[place], ids[place])).unzip();
        }
    }
    answers
}
