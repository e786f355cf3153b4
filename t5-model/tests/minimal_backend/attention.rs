//! Attention, one query of one head at a time; the gradients recompute the probabilities.

use std::rc::Rc;

use fusion_core::HostTensor;
use t5_model::backend::{Attention, DropoutDraw};

use super::operations::Node;

/// The inputs of attention.
pub struct Heads {
    heads: usize,
    d_kv: usize,
    q: Rc<HostTensor>,
    k: Rc<HostTensor>,
    v: Rc<HostTensor>,
    /// `[heads, query, key]`.
    bias: Option<Rc<HostTensor>>,
    causal: bool,
    /// `[batch, key]`.
    key_mask: Option<Vec<u8>>,
    dropout: Option<DropoutDraw>,
}

/// One query of one head of one example.
#[derive(Clone, Copy)]
struct Query {
    example: usize,
    head: usize,
    position: usize,
}

impl Heads {
    pub fn new([q, k, v]: [&Node; 3], how: Attention<'_, Node>) -> Self {
        let [_, _, inner] = q.shape();
        Heads {
            heads: how.heads,
            d_kv: inner / how.heads,
            q: q.value.clone(),
            k: k.value.clone(),
            v: v.value.clone(),
            bias: how.bias.map(|bias| bias.value.clone()),
            causal: how.causal,
            key_mask: how.key_mask.map(<[u8]>::to_vec),
            dropout: how.dropout,
        }
    }

    /// `[batch, query, heads · d_kv]`.
    pub fn attention(&self) -> Vec<f32> {
        let mut y = vec![0.0; self.q.data.len()];
        for at in self.queries() {
            let weights = zip(&self.probabilities(at), &self.factors(at), |p, factor| p * factor);
            for (key, weight) in weights.into_iter().enumerate() {
                self.add(&mut y, at, weight, &self.v.data, Query { position: key, ..at });
            }
        }
        y
    }

    /// The gradients of queries, keys, values and bias; the last is empty if there is no bias.
    pub fn gradients(&self, dy: &[f32]) -> [Vec<f32>; 4] {
        let zeros = |tensor: &HostTensor| vec![0.0; tensor.data.len()];
        let (mut dq, mut dk, mut dv) = (zeros(&self.q), zeros(&self.k), zeros(&self.v));
        let mut dbias = self.bias.as_deref().map(zeros).unwrap_or_default();
        for at in self.queries() {
            let (probabilities, factors) = (self.probabilities(at), self.factors(at));
            let keys: Vec<Query> = (0..factors.len()).map(|key| Query { position: key, ..at }).collect();
            let dprobabilities: Vec<f64> = (keys.iter().zip(&factors))
                .map(|(key, factor)| factor * self.dot(dy, at, &self.v.data, *key))
                .collect();
            let along: f64 = zip(&dprobabilities, &probabilities, |d, p| d * p).iter().sum();
            for (index, key) in keys.into_iter().enumerate() {
                let dscore = probabilities[index] * (dprobabilities[index] - along);
                self.add(&mut dq, at, dscore, &self.k.data, key);
                self.add(&mut dk, key, dscore, &self.q.data, at);
                self.add(&mut dv, key, probabilities[index] * factors[index], dy, at);
                if let Some(dbias) = dbias.get_mut(self.pair(at, index)) {
                    *dbias += dscore as f32;
                }
            }
        }
        [dq, dk, dv, dbias]
    }

    fn queries(&self) -> impl Iterator<Item = Query> {
        let (batch, length, heads) = (self.q.shape[0], self.q.shape[1], self.heads);
        let each = move |example| (0..heads).map(move |head| (example, head));
        (0..batch).flat_map(each).flat_map(move |(example, head)| {
            (0..length).map(move |position| Query { example, head, position })
        })
    }

    /// The probability of each key for a query, before dropout.
    fn probabilities(&self, at: Query) -> Vec<f64> {
        let keys = self.k.shape[1];
        let score = |key: usize| {
            let product = self.dot(&self.q.data, at, &self.k.data, Query { position: key, ..at });
            let bias = self.bias.as_ref().map_or(0.0, |bias| bias.data[self.pair(at, key)]);
            let masked = self.key_mask.as_ref().is_some_and(|mask| mask[at.example * keys + key] == 0);
            let later = self.causal && key + self.q.shape[1] > at.position + keys;
            if masked || later { f64::NEG_INFINITY } else { product + f64::from(bias) }
        };
        let scores: Vec<f64> = (0..keys).map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        scores.iter().map(|score| (score - largest).exp() / total).collect()
    }

    /// The dropout factor of each key.
    fn factors(&self, at: Query) -> Vec<f64> {
        let mut factors = vec![1.0; self.k.shape[1]];
        if let Some(draw) = self.dropout {
            let example = at.example * self.heads * self.q.shape[1] * factors.len();
            draw.factors(example + self.pair(at, 0), &mut factors);
        }
        factors.into_iter().map(f64::from).collect()
    }

    /// An element of `[heads, query, key]`.
    fn pair(&self, at: Query, key: usize) -> usize {
        (at.head * self.q.shape[1] + at.position) * self.k.shape[1] + key
    }

    /// Where a head begins in `x` `[batch, length, heads · d_kv]`.
    fn start(&self, x: &[f32], at: Query) -> usize {
        let length = x.len() / (self.q.shape[0] * self.heads * self.d_kv);
        ((at.example * length + at.position) * self.heads + at.head) * self.d_kv
    }

    fn dot(&self, x: &[f32], x_at: Query, y: &[f32], y_at: Query) -> f64 {
        let (x, y) = (&x[self.start(x, x_at)..][..self.d_kv], &y[self.start(y, y_at)..][..self.d_kv]);
        x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    }

    /// Adds a head of `x`, times a factor, to one of `sum`.
    fn add(&self, sum: &mut [f32], sum_at: Query, factor: f64, x: &[f32], x_at: Query) {
        let start = self.start(sum, sum_at);
        let x = &x[self.start(x, x_at)..][..self.d_kv];
        sum[start..].iter_mut().zip(x).for_each(|(sum, x)| *sum += (factor * f64::from(*x)) as f32);
    }
}

fn zip(x: &[f64], y: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| f(*x, *y)).collect()
}
