//! Attention, forward and backward.

use t5_model::backend::Attention;
use tch::{Kind, Tensor};

use crate::bias::Bias;
use crate::cuda::How;
use crate::node::Node;
use crate::operations::TchOps;
use crate::product::matmul;

/// How activations are divided into heads.
#[derive(Clone, Copy)]
pub struct Heads {
    pub heads: i64,
    /// The type of matrix products.
    pub kind: Kind,
}

impl Heads {
    /// `[batch, length, heads · d_kv]` to `[batch · heads, length, d_kv]`.
    pub fn split(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let (batch, length, inner) = (size[0], size[1], size[2]);
        let x = x.to_kind(self.kind).view([batch, length, self.heads, inner / self.heads]);
        x.transpose(1, 2).reshape([batch * self.heads, length, inner / self.heads])
    }

    /// The inverse of `split`.
    pub fn join(&self, x: &Tensor, batch: i64) -> Tensor {
        let size = x.size();
        let x = x.view([batch, self.heads, size[1], size[2]]);
        x.transpose(1, 2).reshape([batch, size[1], self.heads * size[2]])
    }

    /// Separates the examples: `[batch, heads, …]`.
    fn examples(&self, scores: &Tensor) -> Tensor {
        let size = scores.size();
        scores.view([size[0] / self.heads, self.heads, size[1], size[2]])
    }
}

/// What turns products of queries and keys, `[batch · heads, query, key]`, into probabilities.
pub struct Scores {
    pub heads: Heads,
    /// `[heads, query, key]`.
    pub bias: Option<Tensor>,
    /// Broadcast to `[batch, heads, query, key]`.
    pub hidden: Option<Tensor>,
    /// Dropout factors for the probabilities.
    pub factors: Option<Tensor>,
}

impl Scores {
    /// In f32, whatever the product's type.
    fn probabilities(&self, product: Tensor) -> Tensor {
        let mut scores = product.to_kind(Kind::Float);
        if let Some(bias) = &self.bias {
            scores = self.heads.examples(&scores).g_add_(bias).view_as(&scores);
        }
        if let Some(hidden) = &self.hidden {
            // Every example has a visible key, so the value need not be infinite.
            scores = self.heads.examples(&scores).masked_fill_(hidden, -1e30).view_as(&scores);
        }
        scores.softmax(-1, Kind::Float)
    }

    /// Applies the dropout factors, and converts to the type of products.
    fn weights(&self, probabilities: &Tensor) -> Tensor {
        let kind = self.heads.kind;
        match &self.factors {
            Some(factors) => (probabilities * factors).to_kind(kind),
            None => probabilities.to_kind(kind),
        }
    }

    /// Summed over the examples.
    pub fn bias_gradient(&self, dscores: &Tensor, batch: i64) -> Tensor {
        let size = dscores.size();
        let examples = dscores.view([batch, size[0] / batch, size[1], size[2]]);
        examples.sum_dim_intlist([0].as_slice(), false, Kind::Float)
    }
}

/// What the backward pass needs; all are `[batch · heads, …]`.
pub struct Saved {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    probabilities: Tensor,
    pub output: Tensor,
}

pub fn attention(scores: &Scores, q: Tensor, k: Tensor, v: Tensor) -> Saved {
    let probabilities = scores.probabilities(matmul(&q, &k.transpose(1, 2))); // [batch · heads, query, key]
    let output = matmul(&scores.weights(&probabilities), &v);
    Saved { q, k, v, probabilities, output }
}

impl Saved {
    /// The gradients of queries, keys, values and scores; the last in f32.
    pub fn backward(&self, scores: &Scores, dy: &Tensor) -> [Tensor; 4] {
        let dv = matmul(&scores.weights(&self.probabilities).transpose(1, 2), dy);
        let mut dprobabilities = matmul(dy, &self.v.transpose(1, 2)).to_kind(Kind::Float);
        if let Some(factors) = &scores.factors {
            dprobabilities *= factors;
        }
        let dscores =
            Tensor::internal_softmax_backward_data(&dprobabilities, &self.probabilities, -1, Kind::Float);
        let products = dscores.to_kind(scores.heads.kind);
        [matmul(&products, &self.k), matmul(&products.transpose(1, 2), &self.q), dv, dscores]
    }
}

impl TchOps {
    /// Attention by our own kernels, where they support it.
    pub fn flash(&self, q: &Node, k: &Node, v: &Node, how: &Attention<'_, Bias>) -> Option<Node> {
        let kernels = self.kernels.clone()?;
        let heads = how.heads as i64;
        let values = [q, k, v].map(|x| x.value().to_kind(self.kind));
        let fits = {
            let [q, k, v] = &values;
            kernels.can_attend(heads, q, k, v, how.bias.is_some())
        };
        if !fits {
            return None;
        }
        let relative = match how.bias {
            None => None,
            Some(bias) => Some(bias.of_distances(self)?),
        };
        let visible = how.key_mask.map(|mask| self.padding(mask));
        let bias_value = relative.map(Node::value);
        let (causal, dropout) = (how.causal, how.dropout.as_ref());
        let flash = kernels.attend(values, How { heads, causal, relative: bias_value, visible, dropout });
        let value = flash.output().shallow_clone();
        let no_bias = (None, Kind::Float);
        let inputs = [q.input(), k.input(), v.input(), relative.map_or(no_bias, Node::input)];
        Some(self.node(value, inputs, move |dy, _| {
            let ([dq, dk, dv], dbias) = kernels.attention_gradients(&flash, &dy.contiguous());
            [Some(dq), Some(dk), Some(dv), dbias]
        }))
    }

    /// Attention in libtorch operations, which stores its probabilities.
    pub fn stored_attention(&self, q: &Node, k: &Node, v: &Node, how: Attention<'_, Bias>) -> Node {
        let heads = Heads { heads: how.heads as i64, kind: self.kind };
        let [split_q, split_k, split_v] = [q, k, v].map(|x| heads.split(&x.value())); // [batch · heads, length, d_kv]
        let (query, key) = (split_q.size()[1], split_k.size()[1]);
        let batch = q.value().size()[0];
        let hidden = self.hidden(how.causal, how.key_mask, [batch, query, key]);
        let factors = how.dropout.map(|draw| self.factors(&draw, &[batch * heads.heads, query, key]));
        let bias = how.bias.map(|bias| bias.of_pairs(self));
        let bias_value = bias.map(Node::value);
        let scores = Scores { heads, bias: bias_value, hidden, factors };
        let saved = attention(&scores, split_q, split_k, split_v);
        let y = heads.join(&saved.output, batch);
        let no_bias = (None, Kind::Float);
        let inputs = [q.input(), k.input(), v.input(), bias.map_or(no_bias, Node::input)];
        self.node(y, inputs, move |dy, [.., want_bias]| {
            let [dq, dk, dv, dscores] = saved.backward(&scores, &heads.split(&dy));
            let dbias = want_bias.then(|| scores.bias_gradient(&dscores, batch));
            [Some(heads.join(&dq, batch)), Some(heads.join(&dk, batch)), Some(heads.join(&dv, batch)), dbias]
        })
    }

    /// A padding mask on the device, `[batch · key]`.
    fn padding(&self, mask: &[u8]) -> Tensor {
        let mut last = self.mask.borrow_mut();
        match &*last {
            Some((known, tensor)) if known == mask => tensor.shallow_clone(),
            _ => {
                let tensor = match &self.kernels {
                    Some(kernels) => kernels.upload(mask),
                    None => Tensor::from_slice(mask).to_device(self.device),
                };
                *last = Some((mask.to_vec(), tensor.shallow_clone()));
                tensor
            }
        }
    }

    /// True where a query does not see a key, broadcast to `[batch, heads, query, key]`.
    fn hidden(&self, causal: bool, key_mask: Option<&[u8]>, [batch, query, key]: [i64; 3]) -> Option<Tensor> {
        let causal = causal.then(|| {
            let all = Tensor::ones([1, 1, query, key], (Kind::Bool, self.device));
            all.triu(key - query + 1)
        });
        let padding = key_mask.map(|mask| self.padding(mask).view([batch, 1, 1, key]).eq(0));
        match (causal, padding) {
            (Some(causal), Some(padding)) => Some(causal.logical_or(&padding)),
            (causal, padding) => causal.or(padding),
        }
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use std::rc::Rc;

    use fusion_core::HostTensor;
    use fusion_core::random::Philox;
    use t5_model::backend::{Buckets, DropoutDraw, TokenIds};
    use t5_model::{Ops, Precision};
    use tch::Device;

    use super::*;
    use crate::cuda::Kernels;
    use crate::cuda::emulator::ARCHITECTURES;
    use crate::parameter::Parameter;

    /// An attention of any shape that the kernels take.
    #[derive(Clone, Copy, Debug)]
    struct Case {
        seed: u64,
        batch: usize,
        heads: usize,
        features: usize,
        queries: usize,
        keys: usize,
        causal: bool,
        biased: bool,
        padded: bool,
        dropout: bool,
    }

    impl Case {
        fn new(seed: u64) -> Self {
            let draws = Philox::new(seed, "case");
            let up_to = |index: u64, most: usize| 1 + (draws.uniform(index) * most as f32) as usize;
            let coin = |index: u64| draws.uniform(index) < 0.5;
            // With a single key, the gradients of scores are rounding alone.
            let (first, second, causal) = (up_to(3, 150), 7 + up_to(4, 150), coin(5));
            Case {
                seed,
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

        fn normal(self, name: &str, rows: usize, columns: usize) -> HostTensor {
            let mut tensor = HostTensor::zeros([rows, columns]);
            Philox::new(self.seed, name).fill_normal(0, 0.5, &mut tensor.data);
            // What bf16 holds, for the reference computes in f32.
            tensor.data.iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits() & 0xFFFF_0000));
            tensor
        }

        /// The result, and the gradients of queries, keys, values and the table of biases.
        fn by(self, mut ops: TchOps) -> Vec<HostTensor> {
            let Case { batch, heads, queries, keys, .. } = self;
            let width = heads * self.features;
            let [q, dy] = ["q", "dy"].map(|name| ops.parameter(self.normal(name, batch * queries, width)));
            let [k, v] = ["k", "v"].map(|name| ops.parameter(self.normal(name, batch * keys, width)));
            let table = ops.parameter(self.normal("table", 5, heads));
            let pairs = (0..queries).flat_map(|query| (0..keys).map(move |key| (key + queries - query) * 5));
            let ids = pairs.map(|place| (place / (queries + keys)) as u32).collect();
            let mask: Vec<u8> = (0..batch * keys).map(|at| u8::from(at % keys % 7 != 4)).collect();
            let draw = DropoutDraw::new(0.2, 3, "case").of_examples(2, heads * queries * keys);
            let rows = |ops: &TchOps, table: &Parameter, length: usize| {
                let ids: Vec<i32> = (0..(batch * length) as i32).collect();
                ops.embedding(table, TokenIds { ids: &ids, batch, length })
            };
            let dy = rows(&ops, &dy, queries);
            ops.record(true);
            let bias = ops.position_bias(&table, &Buckets { ids, query: queries, key: keys });
            let how = Attention {
                heads,
                bias: self.biased.then_some(&bias),
                causal: self.causal,
                key_mask: self.padded.then_some(mask.as_slice()),
                dropout: self.dropout.then_some(draw),
            };
            let y =
                ops.attention(&rows(&ops, &q, queries), &rows(&ops, &k, keys), &rows(&ops, &v, keys), how);
            let result = ops.read_activation(&y);
            let loss = ops.product(&y, &dy);
            let (_, gradients) = ops.backward(loss, &[], &[&q, &k, &v, &table]);
            ops.record(false);
            std::iter::once(result)
                .chain(gradients.iter().map(|gradient| ops.read_gradient(gradient)))
                .collect()
        }
    }

    /// The kernels in bf16 against libtorch's operations in f32.
    #[test]
    fn any_shape() {
        for (case, architecture) in (0..60).map(Case::new).zip(ARCHITECTURES.into_iter().cycle()) {
            let kernels = Some(Rc::new(Kernels::emulated(architecture)));
            let found = case.by(TchOps::new(Device::Cpu, Precision::Bf16, kernels));
            let expected = case.by(TchOps::new(Device::Cpu, Precision::F32, None));
            for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let largest = |x: &HostTensor| x.data.iter().fold(0f32, |most, x| most.max(x.abs()));
                let difference = found.data.iter().zip(&expected.data).map(|(x, y)| (x - y).abs());
                let worst = difference.fold(0f32, |most, x| if x > most || x.is_nan() { x } else { most });
                assert!(
                    worst <= 0.03 * largest(expected),
                    "{place} is {worst} off, on {architecture}: {case:?}"
                );
            }
        }
    }
}
