//! Attention over more positions than a kernel takes at a time, against plain loops in f64.

use fusion_core::HostTensor;
use fusion_core::random::Philox;

use super::Check;
use super::by_hand::check;
use super::references::deviation;
use crate::backend::{Attention, Buckets, DropoutDraw, TokenIds};
use crate::{Ops, SessionError};

/// A whole attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Long {
    pub batch: usize,
    pub heads: usize,
    /// Of a head. Kernels like multiples of eight.
    pub features: usize,
    pub queries: usize,
    pub keys: usize,
    pub causal: bool,
    pub biased: bool,
    /// Whether some keys are padding.
    pub padded: bool,
    /// Whether probabilities are dropped.
    pub dropout: bool,
}

const BUCKETS: usize = 7;

/// Attention of so many shapes, of up to 150 queries, 157 keys, and heads of 128 features in multiples of eight. It
/// may deviate by `allowed`. The suite has a few of them; this is for kernels that depend on shapes.
///
/// # Errors
/// None: what a device does is a failed check.
pub fn attention<O: Ops>(ops: &mut O, shapes: u64, allowed: f64) -> Result<Vec<Check>, SessionError> {
    let shapes = (0..shapes).map(Long::drawn);
    shapes.map(|shape| check(ops, format!("{shape:?}"), allowed, |ops| Ok(shape.deviation(ops)))).collect()
}

impl Long {
    /// Two examples of two narrow heads, with a bias.
    pub fn new(queries: usize, keys: usize) -> Self {
        let [causal, padded, dropout] = [false; 3];
        Long { batch: 2, heads: 2, features: 16, queries, keys, causal, biased: true, padded, dropout }
    }

    fn drawn(seed: u64) -> Self {
        let draws = Philox::new(seed, "shape");
        let up_to = |index: u64, most: usize| 1 + (draws.uniform(index) * most as f32) as usize;
        let coin = |index: u64| draws.uniform(index) < 0.5;
        // With a single key, the gradients of scores are rounding alone.
        let (first, second, causal) = (up_to(3, 150), 7 + up_to(4, 150), coin(5));
        Long {
            batch: up_to(0, 3),
            heads: up_to(1, 2),
            features: 8 * up_to(2, 16),
            // A query that sees no key would have no probabilities.
            queries: if causal { first.min(second) } else { first },
            keys: if causal { first.max(second) } else { second },
            causal,
            biased: coin(6),
            padded: coin(7),
            dropout: coin(8),
        }
    }

    /// Of all heads.
    fn width(self) -> usize {
        self.heads * self.features
    }

    /// Queries, keys, values, the table of biases, and the gradient of the output.
    fn inputs(self) -> [HostTensor; 5] {
        let normal = |name: &str, rows: usize, columns: usize| {
            let mut tensor = HostTensor::zeros([rows, columns]);
            Philox::new(3, name).fill_normal(0, 0.5, &mut tensor.data);
            // What bf16 holds, so that only the computation deviates.
            tensor.data.iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits() & 0xFFFF_0000));
            tensor
        };
        [
            normal("q", self.batch * self.queries, self.width()),
            normal("k", self.batch * self.keys, self.width()),
            normal("v", self.batch * self.keys, self.width()),
            normal("table", BUCKETS, self.heads),
            normal("dy", self.batch * self.queries, self.width()),
        ]
    }

    /// A function of the distance, as T5's.
    fn bucket(self, query: usize, key: usize) -> usize {
        (key + self.queries - query) * BUCKETS / (self.queries + self.keys)
    }

    fn is_visible(self, query: usize, key: usize) -> bool {
        let seen = !self.causal || key + self.queries <= query + self.keys;
        seen && !(self.padded && key % 5 == 3)
    }

    fn draw(self) -> Option<DropoutDraw> {
        let draw = DropoutDraw::new(0.3, 7, "long").of_examples(1, self.heads * self.queries * self.keys);
        self.dropout.then_some(draw)
    }

    /// The worst deviation of the result and of all gradients.
    pub fn deviation<O: Ops>(self, ops: &mut O) -> f64 {
        let inputs = self.inputs();
        let [q, k, v, table, dy] = inputs.each_ref().map(|x| ops.parameter(x.clone()));
        let pairs =
            (0..self.queries).flat_map(|query| (0..self.keys).map(move |key| self.bucket(query, key) as u32));
        let buckets = Buckets { ids: pairs.collect(), query: self.queries, key: self.keys };
        let mask: Vec<u8> = (0..self.batch * self.keys)
            .map(|key| u8::from(!(self.padded && key % self.keys % 5 == 3)))
            .collect();

        let dy = self.rows(ops, &dy, self.queries);
        ops.record(true);
        let bias = ops.position_bias(&table, &buckets);
        let how = Attention {
            heads: self.heads,
            bias: self.biased.then_some(&bias),
            causal: self.causal,
            key_mask: self.padded.then_some(mask.as_slice()),
            dropout: self.draw(),
        };
        let [queries, keys, values] = [(&q, self.queries), (&k, self.keys), (&v, self.keys)]
            .map(|(table, length)| self.rows(ops, table, length));
        let y = ops.attention(&queries, &keys, &values, how);
        let found_y = ops.read_activation(&y);
        let loss = ops.product(&y, &dy);
        let (_, gradients) = ops.backward(loss, &[], &[&q, &k, &v, &table]);
        ops.record(false);

        let (y, expected) = self.by_loops(&inputs);
        let found = gradients.iter().map(|gradient| ops.read_gradient(gradient));
        let worst = deviation(Some(&found_y), &y);
        found.zip(&expected).map(|(found, expected)| deviation(Some(&found), expected)).fold(worst, f64::max)
    }

    /// The rows of a table in their order, `[batch, length, width]`.
    fn rows<O: Ops>(self, ops: &O, table: &O::Parameter, length: usize) -> O::Activation {
        let ids: Vec<i32> = (0..(self.batch * length) as i32).collect();
        ops.embedding(table, TokenIds { ids: &ids, batch: self.batch, length })
    }

    /// The result `[batch, query, width]`, and the gradients of queries, keys, values and the table.
    fn by_loops(self, [q, k, v, table, dy]: &[HostTensor; 5]) -> (HostTensor, [HostTensor; 4]) {
        let zeros = |x: &HostTensor| vec![0f64; x.data.len()];
        let (mut y, mut dq, mut dk, mut dv, mut dtable) =
            (zeros(q), zeros(q), zeros(k), zeros(v), zeros(table));
        let mut factors = vec![1f32; self.batch * self.heads * self.queries * self.keys];
        if let Some(draw) = self.draw() {
            draw.factors(0, &mut factors);
        }
        for (example, head) in
            (0..self.batch).flat_map(|example| (0..self.heads).map(move |head| (example, head)))
        {
            let place = |length: usize, position: usize| {
                let start = (example * length + position) * self.width() + head * self.features;
                start..start + self.features
            };
            let dot = |x: &[f32], y: &[f32]| -> f64 {
                x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
            };
            for query in 0..self.queries {
                let own = place(self.queries, query);
                let visible: Vec<usize> = (0..self.keys).filter(|key| self.is_visible(query, *key)).collect();
                let score = |key: &usize| {
                    let bias = if self.biased {
                        table.data[self.bucket(query, *key) * self.heads + head]
                    } else {
                        0.0
                    };
                    dot(&q.data[own.clone()], &k.data[place(self.keys, *key)]) + f64::from(bias)
                };
                let powers: Vec<f64> = visible.iter().map(|key| score(key).exp()).collect();
                let sum: f64 = powers.iter().sum();
                let factor = |key: usize| {
                    let row = (example * self.heads + head) * self.queries + query;
                    f64::from(factors[row * self.keys + key])
                };
                let dp =
                    |key: usize| factor(key) * dot(&dy.data[own.clone()], &v.data[place(self.keys, key)]);
                let mean: f64 = visible.iter().zip(&powers).map(|(key, power)| power / sum * dp(*key)).sum();
                for (key, power) in visible.into_iter().zip(powers) {
                    let (p, other) = (power / sum, place(self.keys, key));
                    let (kept, dscore) = (p * factor(key), p * (dp(key) - mean));
                    dtable[self.bucket(query, key) * self.heads + head] +=
                        if self.biased { dscore } else { 0.0 };
                    for (own, other) in own.clone().zip(other) {
                        y[own] += kept * f64::from(v.data[other]);
                        dq[own] += dscore * f64::from(k.data[other]);
                        dk[other] += dscore * f64::from(q.data[own]);
                        dv[other] += kept * f64::from(dy.data[own]);
                    }
                }
            }
        }
        let tensor = |shape: Vec<usize>, data: Vec<f64>| HostTensor {
            shape,
            data: data.into_iter().map(|value| value as f32).collect(),
        };
        let gradients = [(q, dq), (k, dk), (v, dv), (table, dtable)];
        let y = tensor(vec![self.batch, self.queries, self.width()], y);
        (y, gradients.map(|(x, data)| tensor(x.shape.clone(), data)))
    }
}
