//! T5 in f64 with plain loops, for one example: the reference for the algebra of fusion, up to f64 rounding.

use std::collections::BTreeMap;

use fusion_core::execute::Executor;
use fusion_core::plan::FusionPlan;
use fusion_core::{Dtype, Error, HostTensors, Result, TensorSource, TensorView};
use t5_model::{FeedForward, T5Config, position_bucket};

/// Weights in f64, little-endian.
pub struct Weights(BTreeMap<String, (Vec<usize>, Vec<u8>)>);

impl Weights {
    pub fn new(tensors: &HostTensors) -> Self {
        let bytes = |data: &[f32]| data.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
        Weights(tensors.iter().map(|(name, t)| (name.clone(), (t.shape.clone(), bytes(&t.data)))).collect())
    }

    /// The result of executing a plan in f64.
    pub fn fused(plan: &FusionPlan, parents: &[&Weights]) -> Self {
        let sources: Vec<&dyn TensorSource> = parents.iter().map(|parent| *parent as _).collect();
        let executor = Executor::new(plan, &sources).unwrap();
        let tensor = |index: usize| {
            let tensor = executor.param(index).unwrap();
            assert_eq!(tensor.dtype, Dtype::F64);
            (plan.params[index].name.clone(), (tensor.shape, tensor.bytes))
        };
        Weights((0..plan.params.len()).map(tensor).collect())
    }

    fn matrix(&self, name: &str) -> Matrix {
        let (shape, bytes) = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        let data = bytes.chunks_exact(8).map(|value| f64::from_le_bytes(value.try_into().unwrap())).collect();
        Matrix { columns: *shape.last().unwrap(), data }
    }
}

impl TensorSource for Weights {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn view(&self, name: &str) -> Result<TensorView<'_>> {
        let missing = || Error::NoSuchTensor { origin: "the test".into(), tensor: name.into() };
        let (shape, bytes) = self.0.get(name).ok_or_else(missing)?;
        Ok(TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap())
    }
}

#[derive(Clone)]
struct Matrix {
    columns: usize,
    data: Vec<f64>,
}

impl Matrix {
    fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.data.chunks_exact(self.columns)
    }

    fn map(&self, columns: usize, row: impl Fn(&[f64]) -> Vec<f64>) -> Matrix {
        Matrix { columns, data: self.rows().flat_map(row).collect() }
    }

    /// `self · weightᵀ`.
    fn linear(&self, weight: &Matrix) -> Matrix {
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        self.map(weight.data.len() / weight.columns, |x| weight.rows().map(|w| dot(x, w)).collect())
    }

    fn zip(&self, other: &Matrix, f: impl Fn(f64, f64) -> f64) -> Matrix {
        let data = self.data.iter().zip(&other.data).map(|(a, b)| f(*a, *b)).collect();
        Matrix { columns: self.columns, data }
    }
}

/// The logits of every target position, `[target, vocabulary]`.
pub fn logits(config: &T5Config, weights: &Weights, input: &[i32], decoder_input: &[i32]) -> Vec<f64> {
    let model = Model { config, weights };
    let memory = model.stack("encoder", config.num_layers, input, None);
    let output = model.stack("decoder", config.num_decoder_layers(), decoder_input, Some(&memory));
    let scale = if config.scale_logits() { (config.d_model as f64).powf(-0.5) } else { 1.0 };
    let head = weights.matrix(if config.tied_head() { "shared.weight" } else { "lm_head.weight" });
    output.linear(&head).data.iter().map(|logit| logit * scale).collect()
}

struct Model<'a> {
    config: &'a T5Config,
    weights: &'a Weights,
}

impl Model<'_> {
    fn stack(&self, stack: &str, layers: usize, ids: &[i32], memory: Option<&Matrix>) -> Matrix {
        let embedding = self.weights.matrix("shared.weight");
        let rows = ids.iter().flat_map(|id| embedding.rows().nth(*id as usize).unwrap().to_vec());
        let mut x = Matrix { columns: embedding.columns, data: rows.collect() };
        let table = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let (bias, decoder) = (self.weights.matrix(&table), memory.is_some());
        for block in 0..layers {
            let path = format!("{stack}.block.{block}.layer");
            let normed = self.norm(&x, &format!("{path}.0.layer_norm.weight"));
            let attention = format!("{path}.0.SelfAttention");
            x = x.zip(&self.attention(&attention, &normed, &normed, Some((&bias, decoder))), |x, y| x + y);
            if let Some(memory) = memory {
                let normed = self.norm(&x, &format!("{path}.1.layer_norm.weight"));
                let attention = format!("{path}.1.EncDecAttention");
                x = x.zip(&self.attention(&attention, &normed, memory, None), |x, y| x + y);
            }
            let layer = if decoder { 2 } else { 1 };
            let normed = self.norm(&x, &format!("{path}.{layer}.layer_norm.weight"));
            x = x.zip(&self.feed_forward(&format!("{path}.{layer}.DenseReluDense"), &normed), |x, y| x + y);
        }
        self.norm(&x, &format!("{stack}.final_layer_norm.weight"))
    }

    fn norm(&self, x: &Matrix, gain: &str) -> Matrix {
        let gain = self.weights.matrix(gain);
        x.map(x.columns, |row| {
            let (mut rest, mut normed) = (row, Vec::new());
            for group in self.config.norm_groups() {
                let (slice, others) = rest.split_at(group);
                let mean = slice.iter().map(|x| x * x).sum::<f64>() / group as f64;
                let scale = 1.0 / (mean + self.config.layer_norm_epsilon).sqrt();
                normed.extend(slice.iter().map(|x| x * scale));
                rest = others;
            }
            normed.iter().zip(&gain.data).map(|(x, gain)| x * gain).collect()
        })
    }

    /// `bias` is the table of position biases and whether attention is causal.
    fn attention(&self, path: &str, x: &Matrix, memory: &Matrix, bias: Option<(&Matrix, bool)>) -> Matrix {
        let project =
            |x: &Matrix, name: &str| x.linear(&self.weights.matrix(&format!("{path}.{name}.weight")));
        let (q, k, v) = (project(x, "q"), project(memory, "k"), project(memory, "v"));
        let (heads, d_kv) = (self.config.num_heads, self.config.d_kv);
        let (buckets, distance) =
            (self.config.relative_attention_num_buckets, self.config.relative_attention_max_distance);
        let mut out = Vec::new();
        for (at, q) in q.rows().enumerate() {
            for head in 0..heads {
                let of = |row: &[f64]| row[head * d_kv..(head + 1) * d_kv].to_vec();
                let score = |(key, k): (usize, &[f64])| {
                    let score: f64 = of(q).iter().zip(of(k)).map(|(q, k)| q * k).sum();
                    match bias {
                        Some((_, true)) if key > at => f64::NEG_INFINITY,
                        Some((table, causal)) => {
                            let bucket = position_bucket(key as i64 - at as i64, !causal, buckets, distance);
                            score + table.data[bucket as usize * heads + head]
                        }
                        None => score,
                    }
                };
                let scores: Vec<f64> = k.rows().enumerate().map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                let mut mixed = vec![0.0; d_kv];
                for (weight, v) in weights.iter().zip(v.rows()) {
                    mixed.iter_mut().zip(of(v)).for_each(|(mixed, v)| *mixed += weight / total * v);
                }
                out.extend(mixed);
            }
        }
        project(&Matrix { columns: heads * d_kv, data: out }, "o")
    }

    fn feed_forward(&self, path: &str, x: &Matrix) -> Matrix {
        let project =
            |x: &Matrix, name: &str| x.linear(&self.weights.matrix(&format!("{path}.{name}.weight")));
        let hidden = match self.config.feed_forward_proj {
            FeedForward::Relu => {
                project(x, "wi").map(self.config.d_ff, |row| row.iter().map(|x| x.max(0.0)).collect())
            }
            FeedForward::GatedGelu => project(x, "wi_0").zip(&project(x, "wi_1"), |gate, value| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044715 * gate.powi(3));
                0.5 * gate * (1.0 + inner.tanh()) * value
            }),
        };
        project(&hidden, "wo")
    }
}
