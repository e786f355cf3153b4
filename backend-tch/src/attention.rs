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

    use t5_model::Precision;
    use t5_model::conformance::attention;
    use tch::Device;

    use crate::cuda::Kernels;
    use crate::cuda::emulator::ARCHITECTURES;
    use crate::operations::TchOps;

    #[test]
    fn any_shape() {
        for architecture in ARCHITECTURES {
            let kernels = Some(Rc::new(Kernels::emulated(architecture)));
            let mut ops = TchOps::new(Device::Cpu, Precision::Bf16, kernels);
            let checks = attention(&mut ops, 30, 0.03).unwrap();
            let failed: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
            assert!(failed.is_empty(), "{architecture}: {failed:#?}");
        }
    }
}
