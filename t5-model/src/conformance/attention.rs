//! Attention over more positions than a kernel takes at a time, against plain loops in f64.

use fusion_core::HostTensor;
use fusion_core::random::Philox;

use super::references::deviation;
use crate::Ops;
use crate::backend::{Attention, Buckets, DropoutDraw, TokenIds};

/// A whole attention, small but long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Long {
    pub queries: usize,
    pub keys: usize,
    pub causal: bool,
    /// Whether some keys are padding.
    pub padded: bool,
    /// Whether probabilities are dropped.
    pub dropout: bool,
    /// Of a head. Kernels like multiples of eight.
    pub features: usize,
}

const BATCH: usize = 2;
const HEADS: usize = 2;
const BUCKETS: usize = 7;

impl Long {
    /// Of all heads.
    fn width(self) -> usize {
        HEADS * self.features
    }

    /// Queries, keys, values, the table of biases, and the gradient of the output.
    fn inputs(self) -> [HostTensor; 5] {
        let normal = |name: &str, rows: usize, columns: usize| {
            let mut tensor = HostTensor::zeros([rows, columns]);
            Philox::new(3, name).fill_normal(0, 0.5, &mut tensor.data);
            tensor
        };
        [
            normal("q", BATCH * self.queries, self.width()),
            normal("k", BATCH * self.keys, self.width()),
            normal("v", BATCH * self.keys, self.width()),
            normal("table", BUCKETS, HEADS),
            normal("dy", BATCH * self.queries, self.width()),
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
        let draw = DropoutDraw::new(0.3, 7, "long").of_examples(1, HEADS * self.queries * self.keys);
        self.dropout.then_some(draw)
    }

    /// The worst deviation of the result and of all gradients.
    pub fn deviation<O: Ops>(self, ops: &mut O) -> f64 {
        let inputs = self.inputs();
        let [q, k, v, table, dy] = inputs.each_ref().map(|x| ops.parameter(x.clone()));
        let pairs =
            (0..self.queries).flat_map(|query| (0..self.keys).map(move |key| self.bucket(query, key) as u32));
        let buckets = Buckets { ids: pairs.collect(), query: self.queries, key: self.keys };
        let mask: Vec<u8> =
            (0..BATCH * self.keys).map(|key| u8::from(!(self.padded && key % self.keys % 5 == 3))).collect();

        let dy = rows(ops, &dy, self.queries);
        ops.record(true);
        let bias = ops.position_bias(&table, &buckets);
        let how = Attention {
            heads: HEADS,
            bias: Some(&bias),
            causal: self.causal,
            key_mask: self.padded.then_some(mask.as_slice()),
            dropout: self.draw(),
        };
        let [queries, keys, values] = [(&q, self.queries), (&k, self.keys), (&v, self.keys)]
            .map(|(table, length)| rows(ops, table, length));
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

    /// The result `[batch, query, width]`, and the gradients of queries, keys, values and the table.
    fn by_loops(self, [q, k, v, table, dy]: &[HostTensor; 5]) -> (HostTensor, [HostTensor; 4]) {
        let zeros = |x: &HostTensor| vec![0f64; x.data.len()];
        let (mut y, mut dq, mut dk, mut dv, mut dtable) =
            (zeros(q), zeros(q), zeros(k), zeros(v), zeros(table));
        let mut factors = vec![1f32; BATCH * HEADS * self.queries * self.keys];
        if let Some(draw) = self.draw() {
            draw.factors(0, &mut factors);
        }
        for (example, head) in (0..BATCH).flat_map(|example| (0..HEADS).map(move |head| (example, head))) {
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
                    let bias = table.data[self.bucket(query, *key) * HEADS + head];
                    dot(&q.data[own.clone()], &k.data[place(self.keys, *key)]) + f64::from(bias)
                };
                let powers: Vec<f64> = visible.iter().map(|key| score(key).exp()).collect();
                let sum: f64 = powers.iter().sum();
                let factor = |key: usize| {
                    let row = (example * HEADS + head) * self.queries + query;
                    f64::from(factors[row * self.keys + key])
                };
                let dp =
                    |key: usize| factor(key) * dot(&dy.data[own.clone()], &v.data[place(self.keys, key)]);
                let mean: f64 = visible.iter().zip(&powers).map(|(key, power)| power / sum * dp(*key)).sum();
                for (key, power) in visible.into_iter().zip(powers) {
                    let (p, other) = (power / sum, place(self.keys, key));
                    let (kept, dscore) = (p * factor(key), p * (dp(key) - mean));
                    dtable[self.bucket(query, key) * HEADS + head] += dscore;
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
        let y = tensor(vec![BATCH, self.queries, self.width()], y);
        (y, gradients.map(|(x, data)| tensor(x.shape.clone(), data)))
    }
}

/// The rows of a table in their order, `[batch, length, width]`.
fn rows<O: Ops>(ops: &O, table: &O::Parameter, length: usize) -> O::Activation {
    let ids: Vec<i32> = (0..(BATCH * length) as i32).collect();
    ops.embedding(table, TokenIds { ids: &ids, batch: BATCH, length })
}
