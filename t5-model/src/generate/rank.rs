//! The likelihood of given answers.

use std::collections::HashMap;

use rayon::prelude::*;

use super::decoder::Memory;
use crate::backend::kernels::logits::log_sum_exp;
use crate::backend::{Ops, Positions};
use crate::model::{Layout, T5, View};
use crate::parameters::{Stack, SublayerKind};
use crate::{Batch, Error, Result, T5Config};

/// The most logits that exist at a time.
const LOGITS: usize = 1 << 22;

/// Answers that are asked about for every row.
pub(crate) struct Candidates<'a> {
    tokens: &'a [Vec<i32>],
    /// Of the longest.
    length: usize,
    questions: Vec<Question>,
}

/// The tokens that candidates continue a common beginning with.
struct Question {
    /// Where the beginning ends, `[candidates, length]`.
    place: usize,
    /// The tokens that come next, by candidate.
    next: Vec<(usize, usize)>,
}

impl<'a> Candidates<'a> {
    pub fn new(tokens: &'a [Vec<i32>], config: &T5Config) -> Result<Self> {
        let length = tokens.iter().map(Vec::len).max().unwrap_or(0);
        let mut questions: Vec<Question> = Vec::new();
        let mut known = HashMap::new();
        for (candidate, tokens) in tokens.iter().enumerate() {
            for (at, &token) in tokens.iter().enumerate() {
                let next = usize::try_from(token).ok().filter(|token| *token < config.vocab_size);
                let Some(next) = next else {
                    let last = config.vocab_size - 1;
                    return Err(Error::Candidate { candidate, at, token, last });
                };
                let question = *known.entry(&tokens[..at]).or_insert_with(|| {
                    questions.push(Question { place: candidate * length + at, next: Vec::new() });
                    questions.len() - 1
                });
                questions[question].next.push((candidate, next));
            }
        }
        Ok(Candidates { tokens, length, questions })
    }

    /// What the decoder reads of each, padded, `[candidates, length]`.
    fn decoder_input_ids(&self, config: &T5Config) -> Vec<i32> {
        let padded = |tokens: &'a Vec<i32>| {
            let before = tokens.iter().copied().chain(std::iter::repeat(config.pad_token_id));
            std::iter::once(config.decoder_start_token_id).chain(before).take(self.length)
        };
        self.tokens.iter().flat_map(padded).collect()
    }
}

/// `[row][candidate]`: the log of each candidate's probability after the row's inputs, in nats.
pub(crate) fn log_likelihoods<O: Ops>(
    model: &T5<'_, O>,
    batch: &Batch,
    candidates: &Candidates<'_>,
) -> Vec<Vec<f64>> {
    let mut sums = vec![vec![0.0; candidates.tokens.len()]; batch.size];
    if candidates.questions.is_empty() {
        return sums;
    }
    let T5 { ops, config, .. } = *model;
    let x = decoded(model, &model.start_decoder(batch, 1), candidates); // [rows · candidates, length, d_model]
    let each_row = candidates.tokens.len() * candidates.length;
    let asked: Vec<(usize, &Question)> =
        (0..batch.size).flat_map(|row| candidates.questions.iter().map(move |each| (row, each))).collect();
    for asked in asked.chunks((LOGITS / config.vocab_size).max(1)) {
        let ids = asked.iter().map(|(row, question)| (row * each_row + question.place) as i32).collect();
        let x = ops.gather(&x, &Positions { ids, batch: 1, length: asked.len() });
        let logits = ops.read_activation(&ops.linear(&x, model.head())); // [1, asked, vocabulary]
        let log_sums: Vec<f64> = logits.data.par_chunks(config.vocab_size).map(log_sum_exp).collect();
        let logits = logits.data.chunks(config.vocab_size);
        for ((row, question), (logits, log_sum)) in asked.iter().zip(logits.zip(log_sums)) {
            for &(candidate, token) in &question.next {
                sums[*row][candidate] += f64::from(logits[token]) - log_sum;
            }
        }
    }
    sums
}

/// The decoder's output. A row's candidates attend to themselves one by one, and to the inputs together.
fn decoded<O: Ops>(model: &T5<'_, O>, memory: &Memory<O>, candidates: &Candidates<'_>) -> O::Activation {
    let (rows, count, length) = (memory.rows, candidates.tokens.len(), candidates.length);
    let ids: Vec<i32> = (0..(rows * count * length) as i32).collect();
    let apart = Positions { ids: ids.clone(), batch: rows * count, length };
    let together = Positions { ids, batch: rows, length: count * length };
    let ids = candidates.decoder_input_ids(model.config).repeat(rows);
    let bias = model.position_bias(Stack::Decoder, 0, length, length);
    let mut x = model.embed(&ids, rows * count, length, Stack::Decoder);
    for (block, memory_of) in memory.blocks.iter().enumerate() {
        let own = View { bias: Some(&bias), causal: true, key_mask: None, layout: None };
        x = model.self_attention(Stack::Decoder.sublayer(block, SublayerKind::SelfAttention), x, own);
        let layout = Some(Layout { queries: &together, keys: None, results: &apart });
        let view = View { bias: None, causal: false, key_mask: memory.key_mask.as_deref(), layout };
        x = model.after_self_attention(block, x, &memory_of.encoder, view);
    }
    model.finish(Stack::Decoder, x)
}
