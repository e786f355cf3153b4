//! Attention without stored probabilities: the forward pass keeps each query's log-sum-exp, from which the
//! backward pass recomputes the probabilities (as FlashAttention does; Dao et al., arXiv 2205.14135).

use crate::backend::DropoutDraw;
use rayon::prelude::*;

use super::buffer;
use super::elementwise;
use super::matmul::{Into, Matrix, Threads, matmul};
use super::vector::{add_to, dot, exp, max, sum};

/// Sizes and masks of one attention.
#[derive(Clone)]
pub struct Shape {
    /// The number of examples.
    pub batch: usize,
    /// The number of heads.
    pub heads: usize,
    /// The number of queries per example.
    pub query: usize,
    /// The number of keys per example.
    pub key: usize,
    /// The number of features per head.
    pub d_kv: usize,
    /// Whether query `i` only sees keys `0..=i + key - query`.
    pub causal: bool,
    /// `[batch, key]`, 0 where a key is hidden.
    pub key_mask: Option<Vec<u8>>,
    /// Dropout of the probabilities, indexed as `[batch, heads, query, key]`.
    pub dropout: Option<DropoutDraw>,
}

/// `q` `[batch, query, heads · d_kv]`; `k`, `v` `[batch, key, heads · d_kv]`; `bias` `[heads, query, key]`.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Added to the scores of every example.
    pub bias: Option<&'a [f32]>,
}

/// Gradients of the inputs.
pub struct Gradients {
    /// Of the queries.
    pub q: Vec<f32>,
    /// Of the keys.
    pub k: Vec<f32>,
    /// Of the values.
    pub v: Vec<f32>,
    /// `None` if there is no bias.
    pub bias: Option<Vec<f32>>,
}

/// The number of groups of examples over which the backward pass accumulates the bias's gradient separately.
const GROUPS: usize = 8;

impl Shape {
    fn inner(&self) -> usize {
        self.heads * self.d_kv
    }

    /// One head of one example of `[batch, length, heads · d_kv]`, given that example's slice.
    fn head<'a>(&self, example: &'a [f32], head: usize, length: usize) -> Matrix<'a> {
        Matrix::strided(&example[head * self.d_kv..], length, self.d_kv, self.inner())
    }

    /// Writes the scores of one head of one example, hidden keys as negative infinity.
    fn scores(&self, inputs: Inputs<'_>, example: usize, head: usize, scores: &mut [f32]) {
        let (query, key, inner) = (self.query, self.key, self.inner());
        let q = self.head(&inputs.q[example * query * inner..][..query * inner], head, query);
        let k = self.head(&inputs.k[example * key * inner..][..key * inner], head, key);
        matmul(scores, key, q, k.transposed(), Into::Replace, Threads::One);
        if let Some(bias) = inputs.bias {
            add_to(scores, &bias[head * query * key..][..query * key]);
        }
        if let Some(mask) = &self.key_mask {
            let mask = &mask[example * key..][..key];
            for row in scores.chunks_mut(key) {
                for (score, visible) in row.iter_mut().zip(mask) {
                    *score = if *visible == 0 { f32::NEG_INFINITY } else { *score };
                }
            }
        }
        if self.causal {
            for (i, row) in scores.chunks_mut(key).enumerate() {
                let visible = (i + 1 + key).saturating_sub(query);
                row[visible.min(key)..].fill(f32::NEG_INFINITY);
            }
        }
    }

    /// The output for an example with a single query, and its heads' log-sum-exps: keys and values are read
    /// once for all heads.
    fn one_query(&self, inputs: Inputs<'_>, example: usize, out: &mut [f32], log_sums: &mut [f32]) {
        let (key, d_kv, inner) = (self.key, self.d_kv, self.inner());
        let q = &inputs.q[example * inner..][..inner];
        let [k, v] = [inputs.k, inputs.v].map(|x| x[example * key * inner..][..key * inner].chunks(inner));
        let is_visible = |at: usize| self.key_mask.as_ref().is_none_or(|mask| mask[example * key + at] != 0);
        let mut scores = vec![f32::NEG_INFINITY; self.heads * key];
        for (at, k) in k.enumerate().filter(|(at, _)| is_visible(*at)) {
            for (head, (q, k)) in q.chunks(d_kv).zip(k.chunks(d_kv)).enumerate() {
                let place = head * key + at;
                scores[place] = dot(q, k) + inputs.bias.map_or(0.0, |bias| bias[place]);
            }
        }
        scores.chunks_mut(key).zip(log_sums).for_each(|(row, log_sum)| *log_sum = softmax(row));
        out.fill(0.0);
        for (at, v) in v.enumerate().filter(|(at, _)| is_visible(*at)) {
            for (head, (out, v)) in out.chunks_mut(d_kv).zip(v.chunks(d_kv)).enumerate() {
                let probability = scores[head * key + at];
                out.iter_mut().zip(v).for_each(|(out, v)| *out += probability * v);
            }
        }
    }

    /// The dropout factors for one head of one example.
    fn dropout_factors(&self, draw: &DropoutDraw, example: usize, head: usize, factors: &mut Vec<f32>) {
        let len = self.query * self.key;
        factors.resize(len, 0.0);
        draw.factors((example * self.heads + head) * len, factors);
    }
}

/// The output `[batch, query, heads · d_kv]`, and each query's log-sum-exp `[batch, heads, query]`.
pub fn attention(shape: &Shape, inputs: Inputs<'_>) -> (Vec<f32>, Vec<f32>) {
    let (query, key, inner, heads) = (shape.query, shape.key, shape.inner(), shape.heads);
    let mut out = buffer(shape.batch * query * inner);
    let mut log_sums = buffer(shape.batch * heads * query);
    out.par_chunks_mut(query * inner).zip(log_sums.par_chunks_mut(heads * query)).enumerate().for_each_init(
        || (buffer(query * key), Vec::new()),
        |(scores, factors), (example, (out, log_sums))| {
            if query == 1 && shape.dropout.is_none() {
                return shape.one_query(inputs, example, out, log_sums);
            }
            for (head, log_sums) in log_sums.chunks_mut(query).enumerate() {
                shape.scores(inputs, example, head, scores);
                for (row, log_sum) in scores.chunks_mut(key).zip(log_sums) {
                    *log_sum = softmax(row);
                }
                if let Some(draw) = &shape.dropout {
                    shape.dropout_factors(draw, example, head, factors);
                    scores.iter_mut().zip(factors.iter()).for_each(|(score, factor)| *score *= factor);
                }
                let v = shape.head(&inputs.v[example * key * inner..][..key * inner], head, key);
                let out = &mut out[head * shape.d_kv..];
                matmul(out, inner, Matrix::new(scores, query, key), v, Into::Replace, Threads::One);
            }
        },
    );
    (out, log_sums)
}

/// Turns scores into probabilities; returns their log-sum-exp.
fn softmax(scores: &mut [f32]) -> f32 {
    let largest = max(scores);
    scores.iter_mut().for_each(|score| *score = masked_exp(*score, largest));
    let total = sum(scores);
    scores.iter_mut().for_each(|score| *score /= total);
    largest + total.ln()
}

/// The gradients, given the log-sum-exps from [`attention`] and the gradient of its output.
pub fn attention_gradient(shape: &Shape, inputs: Inputs<'_>, log_sums: &[f32], dy: &[f32]) -> Gradients {
    let (query, key, inner) = (shape.query, shape.key, shape.inner());
    let mut dq = buffer(inputs.q.len());
    let (mut dk, mut dv) = (buffer(inputs.k.len()), buffer(inputs.k.len()));
    let examples = shape.batch.div_ceil(GROUPS);
    let partial_biases: Vec<Vec<f32>> = dq
        .par_chunks_mut(examples * query * inner)
        .zip(dk.par_chunks_mut(examples * key * inner).zip(dv.par_chunks_mut(examples * key * inner)))
        .enumerate()
        .map(|(group, (dq, (dk, dv)))| {
            let mut dbias = inputs.bias.map(|bias| vec![0f32; bias.len()]).unwrap_or_default();
            let mut scratch = Scratch::new(query * key);
            let each =
                dq.chunks_mut(query * inner).zip(dk.chunks_mut(key * inner).zip(dv.chunks_mut(key * inner)));
            for (index, (dq, (dk, dv))) in each.enumerate() {
                let example = group * examples + index;
                let dy = &dy[example * query * inner..][..query * inner];
                for head in 0..shape.heads {
                    let log_sums = &log_sums[(example * shape.heads + head) * query..][..query];
                    scratch.differentiate(shape, inputs, (example, head), log_sums, dy);
                    let Scratch { probabilities, dscores, .. } = &scratch;
                    let dscores_matrix = Matrix::new(dscores, query, key);
                    let q = shape.head(&inputs.q[example * query * inner..][..query * inner], head, query);
                    let k = shape.head(&inputs.k[example * key * inner..][..key * inner], head, key);
                    let at = head * shape.d_kv;
                    let dropped = Matrix::new(probabilities, query, key).transposed();
                    let (replace, one) = (Into::Replace, Threads::One);
                    matmul(&mut dq[at..], inner, dscores_matrix, k, replace, one);
                    matmul(&mut dk[at..], inner, dscores_matrix.transposed(), q, replace, one);
                    matmul(&mut dv[at..], inner, dropped, shape.head(dy, head, query), replace, one);
                    if inputs.bias.is_some() {
                        add_to(&mut dbias[head * query * key..][..query * key], dscores);
                    }
                }
            }
            dbias
        })
        .collect();
    let bias = inputs.bias.is_some().then(|| {
        let mut partials = partial_biases.into_iter();
        let mut total = partials.next().unwrap_or_default();
        partials.for_each(|partial| elementwise::add_to(&mut total, &partial));
        total
    });
    Gradients { q: dq, k: dk, v: dv, bias }
}

/// Buffers of the backward pass for one head of one example, `[query, key]` each.
struct Scratch {
    /// After dropout.
    probabilities: Vec<f32>,
    dscores: Vec<f32>,
    factors: Vec<f32>,
}

impl Scratch {
    fn new(len: usize) -> Self {
        Scratch { probabilities: buffer(len), dscores: buffer(len), factors: Vec::new() }
    }

    fn differentiate(
        &mut self,
        shape: &Shape,
        inputs: Inputs<'_>,
        (example, head): (usize, usize),
        log_sums: &[f32],
        dy: &[f32],
    ) {
        let (query, key, inner) = (shape.query, shape.key, shape.inner());
        let Scratch { probabilities, dscores, factors } = self;
        shape.scores(inputs, example, head, probabilities);
        for (row, log_sum) in probabilities.chunks_mut(key).zip(log_sums) {
            row.iter_mut().for_each(|score| *score = masked_exp(*score, *log_sum));
        }
        let v = shape.head(&inputs.v[example * key * inner..][..key * inner], head, key);
        matmul(dscores, key, shape.head(dy, head, query), v.transposed(), Into::Replace, Threads::One);
        if let Some(draw) = &shape.dropout {
            shape.dropout_factors(draw, example, head, factors);
            dscores.iter_mut().zip(factors.iter()).for_each(|(d, factor)| *d *= factor);
        }
        for (dscores, probabilities) in dscores.chunks_mut(key).zip(probabilities.chunks(key)) {
            let along = dot(dscores, probabilities);
            dscores.iter_mut().zip(probabilities).for_each(|(d, p)| *d = p * (*d - along));
        }
        if shape.dropout.is_some() {
            probabilities.iter_mut().zip(factors.iter()).for_each(|(p, factor)| *p *= factor);
        }
    }
}

/// `e^(score - offset)`, exactly 0 for a hidden key.
#[inline(always)]
fn masked_exp(score: f32, offset: f32) -> f32 {
    let value = exp(score - offset);
    if score == f32::NEG_INFINITY { 0.0 } else { value }
}
