//! Beam search, as in transformers: the same candidates, scores and ends of the search.

use rayon::prelude::*;

use super::decoding::{Answer, Decoding};
use super::rules::Context;
use crate::backend::kernels::logits::log_sum_exp;
use crate::model::T5;
use crate::{Batch, Ops};

/// The beams of one row.
struct Search<'a> {
    how: &'a Decoding,
    length_penalty: f64,
    /// The tokens that end an answer.
    ends: &'a [i32],
    /// As many as there are beams, the best first.
    running: Vec<Beam>,
    /// At most as many, the best first.
    finished: Vec<Answer>,
    over: bool,
}

#[derive(Clone)]
struct Beam {
    tokens: Vec<i32>,
    log_probability: f64,
}

/// A token that may follow a beam.
#[derive(Clone, Copy)]
struct Candidate {
    beam: usize,
    token: usize,
    log_probability: f64,
}

/// `[row][answer]`, the best first.
pub(super) fn search<O: Ops>(
    model: &T5<'_, O>,
    batch: &Batch,
    how: &Decoding,
    length_penalty: f64,
) -> Vec<Vec<Answer>> {
    let T5 { ops, config, .. } = *model;
    let (beams, vocabulary) = (how.beams, config.vocab_size);
    let ((start, ends), free) = (how.rules.bounds(config), how.rules.are_free());
    let search = || Search::new(how, length_penalty, ends);
    let mut searches: Vec<Search<'_>> = (0..batch.size).map(|_| search()).collect();
    let mut going: Vec<usize> = (0..batch.size).collect(); // rows, as `memory` has them
    let mut memory = model.start_decoder(batch, beams);
    let mut ids = vec![start; batch.size * beams];
    for _ in 0..how.limit() {
        let x = model.decode(&mut memory, &ids); // [going · beams, 1, d_model]
        let logits = ops.read_activation(&ops.linear(&x, model.head())); // [going · beams, 1, vocabulary]
        let most = 2 * beams;
        let each = logits.data.par_chunks(vocabulary).enumerate();
        let best: Vec<Vec<(usize, f64)>> = each
            .map(|(place, logits)| {
                if free {
                    return most_likely(logits, most, log_sum_exp(logits));
                }
                let tokens = &searches[going[place / beams]].running[place % beams].tokens;
                let context = Context { start, tokens, ends, max_new_tokens: how.limit() };
                // transformers applies the rules to log probabilities here.
                let sum = log_sum_exp(logits) as f32;
                let mut ruled: Vec<f32> = logits.iter().map(|logit| logit - sum).collect();
                how.rules.apply(&mut ruled, &context);
                most_likely(&ruled, most, 0.0)
            })
            .collect();
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        ids.clear();
        for (place, (row, best)) in going.iter().zip(best.chunks(beams)).enumerate() {
            let search = &mut searches[*row];
            let from = search.step(best);
            if !search.over {
                rows.push(place);
                places.extend(from.into_iter().map(|beam| place * beams + beam));
                ids.extend(search.running.iter().filter_map(|beam| beam.tokens.last()));
            }
        }
        if rows.is_empty() {
            break;
        }
        memory.reorder(ops, &rows, &places);
        going = rows.into_iter().map(|place| going[place]).collect();
    }
    let answers = |search: Search<'_>| search.finished.into_iter().take(how.answers).collect();
    searches.into_iter().map(answers).collect()
}

impl<'a> Search<'a> {
    fn new(how: &'a Decoding, length_penalty: f64, ends: &'a [i32]) -> Self {
        let nothing = |log_probability| Beam { tokens: Vec::new(), log_probability };
        // All beams begin alike, so only the first is continued.
        let mut running = vec![nothing(f64::NEG_INFINITY); how.beams];
        running[0] = nothing(0.0);
        Search { how, length_penalty, ends, running, finished: Vec::new(), over: false }
    }

    /// Continues the beams, given each one's most likely tokens with their log probabilities. Returns which
    /// beam each new one continues.
    fn step(&mut self, best: &[Vec<(usize, f64)>]) -> Vec<usize> {
        let beams = self.how.beams;
        let mut candidates: Vec<Candidate> = Vec::new();
        for (beam, (running, best)) in self.running.iter().zip(best).enumerate() {
            let all = best.iter().map(|(token, log_probability)| Candidate {
                beam,
                token: *token,
                log_probability: running.log_probability + log_probability,
            });
            candidates.extend(all.filter(|candidate| candidate.log_probability > f64::NEG_INFINITY));
        }
        // Stable, so that of equals the first beam's comes first.
        candidates.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability));
        candidates.truncate(2 * beams);

        let length = self.running[0].tokens.len() + 1;
        let last = length == self.how.limit();
        let (mut running, mut from) = (Vec::with_capacity(beams), Vec::with_capacity(beams));
        for (rank, candidate) in candidates.into_iter().enumerate() {
            let Candidate { beam, token, log_probability } = candidate;
            let token = token as i32;
            let ends = self.ends.contains(&token);
            let mut tokens = self.running[beam].tokens.clone();
            tokens.extend((!ends).then_some(token));
            if ends || last {
                if rank < beams {
                    let score = log_probability / (length as f64).powf(self.length_penalty);
                    self.finish(Answer { tokens, log_probability, score });
                }
            } else if running.len() < beams {
                running.push(Beam { tokens, log_probability });
                from.push(beam);
            }
        }
        self.over = last || running.is_empty() || !self.goes_on(length, running[0].log_probability);
        // A small vocabulary may have no more continuations.
        while let Some(first) = running.first().filter(|_| running.len() < beams) {
            running.push(Beam { tokens: first.tokens.clone(), log_probability: f64::NEG_INFINITY });
            from.push(from[0]);
        }
        if !self.over {
            self.running = running;
        }
        from
    }

    fn is_full(&self) -> bool {
        self.finished.len() == self.how.beams
    }

    fn finish(&mut self, answer: Answer) {
        let at = self.finished.partition_point(|other| other.score >= answer.score);
        self.finished.insert(at, answer);
        self.finished.truncate(self.how.beams);
    }

    /// Whether a running beam, of which the best has this log probability, may still be better than a
    /// finished one; judged as if it ended here, as transformers does.
    fn goes_on(&self, length: usize, best: f64) -> bool {
        match self.finished.last() {
            Some(worst) if self.is_full() => {
                let possible = best / (length as f64).powf(self.length_penalty);
                !self.how.early_stopping && possible > worst.score
            }
            _ => true,
        }
    }
}

/// The most likely tokens with their log probabilities, their logits less `sum`: the most likely first, equals
/// in order.
fn most_likely(logits: &[f32], count: usize, sum: f64) -> Vec<(usize, f64)> {
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(count + 1);
    for (token, &logit) in logits.iter().enumerate() {
        if best.len() == count && best.last().is_some_and(|(_, least)| logit <= *least) {
            continue;
        }
        let at = best.partition_point(|(_, other)| *other >= logit);
        best.insert(at, (token, logit));
        best.truncate(count);
    }
    best.into_iter().map(|(token, logit)| (token, f64::from(logit) - sum)).collect()
}
