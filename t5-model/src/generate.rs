//! Greedy decoding with cached keys and values.

use std::collections::BTreeMap;

use crate::{Batch, Ops, T5, T5Config};

/// Continues every row of a batch until it has ended or has `max_new_tokens` tokens; the end of sequence token is
/// left out.
pub(crate) fn generate<O: Ops>(
    ops: &O,
    config: &T5Config,
    parameters: &BTreeMap<String, O::Parameter>,
    batch: &Batch,
    max_new_tokens: usize,
) -> Vec<Vec<i32>> {
    let model = T5::new(ops, config, parameters);
    let mut cache = model.start_generation(batch);
    let mut ids = vec![config.decoder_start_token_id; batch.size];
    let mut rows = vec![Vec::new(); batch.size];
    let mut ended = vec![false; batch.size];
    for position in 0..max_new_tokens {
        let x = model.generate_step(&mut cache, batch, &ids, position);
        let logits = ops.read_activation(&ops.linear(&x, model.head())); // [batch, 1, vocabulary]
        for (row, logits) in logits.data.chunks(config.vocab_size).enumerate() {
            let token = most_likely(logits);
            ended[row] |= token == config.eos_token_id;
            if !ended[row] {
                rows[row].push(token);
            }
            ids[row] = if ended[row] { config.pad_token_id } else { token };
        }
        if ended.iter().all(|ended| *ended) {
            break;
        }
    }
    rows
}

/// The first of the largest logits.
fn most_likely(logits: &[f32]) -> i32 {
    let best = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (1..logits.len()).fold(0, best) as i32
}
