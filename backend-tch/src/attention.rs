//! Attention, forward and backward.

use tch::{Kind, Tensor};

use crate::tensor::matmul;

/// How activations fall into heads.
#[derive(Clone, Copy)]
pub struct Heads {
    pub heads: i64,
    /// What products are computed in.
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

    /// And back.
    pub fn join(&self, x: &Tensor, batch: i64) -> Tensor {
        let size = x.size();
        let x = x.view([batch, self.heads, size[1], size[2]]);
        x.transpose(1, 2).reshape([batch, size[1], self.heads * size[2]])
    }

    /// One row of heads for each example.
    fn examples(&self, scores: &Tensor) -> Tensor {
        let size = scores.size();
        scores.view([size[0] / self.heads, self.heads, size[1], size[2]])
    }
}

/// What is done to products of queries and keys, `[batch · heads, query, key]`.
pub struct Scores {
    pub heads: Heads,
    /// `[heads, query, key]`.
    pub bias: Option<Tensor>,
    /// Broadcast to `[batch, heads, query, key]`.
    pub hidden: Option<Tensor>,
    /// Of the probabilities.
    pub factors: Option<Tensor>,
}

impl Scores {
    /// In f32, whatever the product is in.
    fn probabilities(&self, product: Tensor) -> Tensor {
        let mut scores = product.to_kind(Kind::Float);
        if let Some(bias) = &self.bias {
            scores = self.heads.examples(&scores).g_add_(bias).view_as(&scores);
        }
        if let Some(hidden) = &self.hidden {
            // Some key of each example is visible, so the number need not be infinite.
            scores = self.heads.examples(&scores).masked_fill_(hidden, -1e30).view_as(&scores);
        }
        scores.softmax(-1, Kind::Float)
    }

    /// The factors, and the type of products.
    fn weights(&self, probabilities: &Tensor) -> Tensor {
        let kind = self.heads.kind;
        match &self.factors {
            Some(factors) => (probabilities * factors).to_kind(kind),
            None => probabilities.to_kind(kind),
        }
    }

    /// The sum over examples.
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
