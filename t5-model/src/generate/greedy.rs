//! Greedy decoding.

use rayon::prelude::*;

use super::Decoding;
use super::decoder::whole_rows;
use crate::backend::kernels::logits::most_likely;
use crate::model::T5;
use crate::{Batch, Ops};

/// Dropping ended rows copies the keys and values of the others, which takes about half as long as a step. So rows are dropped only once this share of them has ended.
const WORTH_FORGETTING: f64 = 0.25;

/// Continues every row of a batch until it ends, has as many tokens as it may have, or `stop` accepts its
/// tokens. The token that ends it is not included.
pub(crate) fn generate<O: Ops>(
    model: &T5<'_, O>,
    batch: &Batch,
    decoding: &Decoding,
    stop: &dyn Fn(&[i32]) -> bool,
) -> Vec<Vec<i32>> {
    let T5 { ops, config, .. } = *model;
    let mut rows = vec![Vec::new(); batch.size];
    let start = decoding.start.unwrap_or(config.decoder_start_token_id);
    let ends = decoding.ends.as_ref().unwrap_or(&config.eos_token_id.0);
    if decoding.max_new_tokens == 0 {
        return rows;
    }
    let mut memory = model.start_decoder(batch);
    let mut remembered: Vec<usize> = (0..batch.size).collect(); // rows, as `memory` has them
    let mut going: Vec<usize> = remembered.clone(); // places among these
    let mut ids = vec![start; batch.size];
    for _ in 0..decoding.max_new_tokens {
        let mut x = model.decode(&mut memory, &ids); // [remembered, 1, d_model]
        if going.len() < remembered.len() {
            x = ops.gather(&x, &whole_rows(&going, 1)); // [going, 1, d_model]
        }
        let mut logits = ops.read_activation(&ops.linear(&x, model.head())); // [going, 1, vocabulary]
        if !decoding.is_free() {
            let each = logits.data.par_chunks_mut(config.vocab_size).zip(&going);
            each.for_each(|(logits, &place)| decoding.apply(logits, start, &rows[remembered[place]], ends));
        }
        let tokens: Vec<i32> = logits.data.par_chunks(config.vocab_size).map(most_likely).collect();
        ids.fill(config.pad_token_id);
        let mut tokens = tokens.into_iter();
        going.retain(|&place| {
            let row = &mut rows[remembered[place]];
            let Some(token) = tokens.next().filter(|token| !ends.contains(token)) else { return false };
            row.push(token);
            ids[place] = token;
            !stop(row)
        });
        if going.is_empty() {
            break;
        }
        let ended = remembered.len() - going.len();
        if ended as f64 >= WORTH_FORGETTING * remembered.len() as f64 {
            memory.keep(ops, &going);
            (remembered, ids) = going.iter().map(|&place| (remembered[place], ids[place])).unzip();
            going = (0..remembered.len()).collect();
        }
    }
    rows
}
