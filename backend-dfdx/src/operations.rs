//! T5's operations on dfdx's tensors and tape, computed by this workspace's kernels. Matrix products too: with dfdx's own, of
//! an older `gemm`, a training step takes 1.8 times as long.

use dfdx::prelude::*;
use fusion_core::HostTensor;
use t5_model::kernels::attention::{self, attention, attention_gradient};
use t5_model::kernels::{activation, cross_entropy, elementwise, embedding, matmul, norm};
use t5_model::optimizer::{Moments, ParameterUpdate, sum_of_squares};
use t5_model::{Attention, Buckets, CrossEntropy, DropoutDraw, LossSums, Ops, TokenIds};

use crate::tape::{Recorder, take_gradient};
use crate::tensor::{Activation, Flat, Matrix, flat, host, tensor, values, values_mut};

/// The operations; holds what was recorded.
#[derive(Default)]
pub struct DfdxOps {
    device: Cpu,
    tape: Recorder,
}

/// A parameter or its gradient as a matrix; a gain has one row.
pub struct Parameter {
    matrix: Matrix,
    shape: Vec<usize>,
}

impl DfdxOps {
    /// The result of an operation with kernels, see [`Recorder::append`].
    fn record<S: Shape, const N: usize>(
        &self,
        parents: [&Flat; N],
        y: Vec<f32>,
        shape: S,
        backward: impl FnOnce(Vec<f32>) -> [Vec<f32>; N] + 'static,
    ) -> Tensor<S, f32, Cpu> {
        let y = tensor(&self.device, y, shape);
        self.tape.append(parents, &y, backward);
        y
    }
}

impl Ops for DfdxOps {
    type Parameter = Parameter;
    type Activation = Activation;
    type Bias = Activation;
    type Loss = Tensor<Rank0, f32, Cpu>;
    type Gradient = Parameter;

    fn parameter(&self, HostTensor { shape, data }: HostTensor) -> Parameter {
        let columns = shape.last().copied().unwrap_or(1);
        let rows = data.len() / columns;
        Parameter { matrix: tensor(&self.device, data, (rows, columns)), shape }
    }

    fn read_parameter(&self, Parameter { matrix, shape }: &Parameter) -> HostTensor {
        host(matrix, shape)
    }

    fn read_activation(&self, activation: &Activation) -> HostTensor {
        host(activation, &activation.shape().concrete())
    }

    fn read_gradient(&self, Parameter { matrix, shape }: &Parameter) -> HostTensor {
        host(matrix, shape)
    }

    fn record(&mut self, on: bool) {
        self.tape.record(on);
    }

    fn embedding(&self, table: &Parameter, TokenIds { ids, batch, length }: TokenIds<'_>) -> Activation {
        let (rows, features) = *table.matrix.shape();
        let y = embedding::embedding(values(&table.matrix), features, ids);
        let ids = ids.to_vec();
        self.record([&flat(&table.matrix)], y, (batch, length, features), move |dy| {
            [embedding::embedding_gradient(&dy, rows, features, &ids)]
        })
    }

    fn linear(&self, x: &Activation, weight: &Parameter) -> Activation {
        let ((batch, length, inputs), (outputs, _)) = (*x.shape(), *weight.matrix.shape());
        let (x, weight) = (flat(x), flat(&weight.matrix));
        let y = matmul::linear(values(&x), values(&weight), inputs);
        let (saved_x, saved_weight) = (x.clone(), weight.clone());
        self.record([&x, &weight], y, (batch, length, outputs), move |dy| {
            let dx = matmul::linear_input_gradient(&dy, values(&saved_weight), inputs);
            [dx, matmul::linear_weight_gradient(&dy, values(&saved_x), inputs)]
        })
    }

    fn rms_norm(&self, x: &Activation, gain: &Parameter, groups: &[usize], epsilon: f32) -> Activation {
        let (shape, x, gain) = (*x.shape(), flat(x), flat(&gain.matrix));
        let y = norm::rms_norm(values(&x), values(&gain), groups, epsilon);
        let (saved_x, saved_gain, groups) = (x.clone(), gain.clone(), groups.to_vec());
        self.record([&x, &gain], y, shape, move |dy| {
            norm::rms_norm_gradient(values(&saved_x), values(&saved_gain), &groups, epsilon, &dy).into()
        })
    }

    fn position_bias(&self, table: &Parameter, buckets: &Buckets) -> Activation {
        let (rows, heads) = *table.matrix.shape();
        let bias = embedding::position_bias(values(&table.matrix), heads, &buckets.ids);
        let ids = buckets.ids.clone();
        self.record([&flat(&table.matrix)], bias, (heads, buckets.query, buckets.key), move |dbias| {
            [embedding::position_bias_gradient(&dbias, rows, &ids)]
        })
    }

    fn attention(
        &self,
        q: &Activation,
        k: &Activation,
        v: &Activation,
        how: Attention<'_, Activation>,
    ) -> Activation {
        let ((batch, query, inner), (_, key, _)) = (*q.shape(), *k.shape());
        let shape = attention::Shape {
            batch,
            heads: how.heads,
            query,
            key,
            d_kv: inner / how.heads,
            causal: how.causal,
            key_mask: how.key_mask.map(<[u8]>::to_vec),
            dropout: how.dropout,
        };
        let ([q, k, v], bias) = ([q, k, v].map(flat), how.bias.map(flat));
        let saved = [q.clone(), k.clone(), v.clone()];
        let saved_bias = bias.clone();
        let (y, log_sums) = attention(&shape, attention_inputs(&saved, saved_bias.as_ref()));
        let gradients = move |dy: Vec<f32>| {
            let inputs = attention_inputs(&saved, saved_bias.as_ref());
            attention_gradient(&shape, inputs, &log_sums, &dy)
        };
        let shape = (batch, query, inner);
        match &bias {
            None => self.record([&q, &k, &v], y, shape, move |dy| {
                let attention::Gradients { q, k, v, .. } = gradients(dy);
                [q, k, v]
            }),
            Some(bias) => self.record([&q, &k, &v, bias], y, shape, move |dy| {
                let attention::Gradients { q, k, v, bias } = gradients(dy);
                [q, k, v, bias.expect("attention with a bias has its gradient")]
            }),
        }
    }

    fn gated_gelu(&self, gate: &Activation, value: &Activation) -> Activation {
        let (shape, gate, value) = (*gate.shape(), flat(gate), flat(value));
        let y = activation::gated_gelu(values(&gate), values(&value));
        let (saved_gate, saved_value) = (gate.clone(), value.clone());
        self.record([&gate, &value], y, shape, move |dy| {
            activation::gated_gelu_gradient(values(&saved_gate), values(&saved_value), &dy).into()
        })
    }

    fn relu(&self, x: &Activation) -> Activation {
        let (shape, x) = (*x.shape(), flat(x));
        let y = elementwise::map(values(&x), |x| x.max(0.0));
        let saved = x.clone();
        self.record([&x], y, shape, move |dy| {
            [elementwise::zip(values(&saved), &dy, |x, dy| if x > 0.0 { dy } else { 0.0 })]
        })
    }

    fn add(&self, x: &Activation, y: &Activation) -> Activation {
        let sum = elementwise::zip(values(x), values(y), |x, y| x + y);
        self.record([&flat(x), &flat(y)], sum, *x.shape(), |dy| [dy.clone(), dy])
    }

    fn scale(&self, x: &Activation, factor: f32) -> Activation {
        let scaled = move |x: &[f32]| elementwise::map(x, |x| x * factor);
        self.record([&flat(x)], scaled(values(x)), *x.shape(), move |dy| [scaled(&dy)])
    }

    fn dropout(&self, x: &Activation, draw: DropoutDraw) -> Activation {
        let dropped = move |x: &[f32]| elementwise::dropout(x, &draw);
        self.record([&flat(x)], dropped(values(x)), *x.shape(), move |dy| [dropped(&dy)])
    }

    fn append(&self, x: &Activation, y: &Activation) -> Activation {
        let ((batch, first, features), (_, second, _)) = (*x.shape(), *y.shape());
        let rows = values(x).chunks(first * features).zip(values(y).chunks(second * features));
        let data = rows.flat_map(|(x, y)| [x, y]).flatten().copied().collect();
        tensor(&self.device, data, (batch, first + second, features))
    }

    fn cross_entropy(
        &self,
        x: &Activation,
        head: &Parameter,
        labels: &[i32],
        how: CrossEntropy,
    ) -> (Tensor<Rank0, f32, Cpu>, LossSums) {
        let (_, _, features) = *x.shape();
        let (x, head) = (flat(x), flat(&head.matrix));
        let recording = self.tape.is_recording();
        let (loss, sums, gradients) =
            cross_entropy::cross_entropy(values(&x), values(&head), features, labels, how, recording);
        let loss = self.record([&x, &head], vec![loss as f32], (), move |dy| {
            let gradients = gradients.expect("what is recorded has gradients");
            let cross_entropy::HeadGradients { x, head } = gradients.scaled(dy[0]);
            [x, head]
        });
        (loss, sums)
    }

    fn backward(&self, loss: Tensor<Rank0, f32, Cpu>, parameters: &[&Parameter]) -> Vec<Parameter> {
        let mut gradients = self.tape.backward(loss);
        let take = |Parameter { matrix, shape }: &&Parameter| {
            let gradient = take_gradient(&mut gradients, matrix);
            Parameter { matrix: gradient, shape: shape.clone() }
        };
        parameters.iter().map(take).collect()
    }

    fn accumulate(&self, total: &mut Parameter, gradient: Parameter) {
        elementwise::add_to(values_mut(&mut total.matrix), values(&gradient.matrix));
    }

    fn squared_norm(&self, gradient: &Parameter) -> f64 {
        sum_of_squares(values(&gradient.matrix))
    }

    fn update(
        &self,
        parameter: &mut Parameter,
        gradient: Parameter,
        moments: &mut Moments,
        update: &ParameterUpdate,
    ) {
        let weights = values_mut(&mut parameter.matrix);
        update.apply(&parameter.shape, weights, values(&gradient.matrix), moments);
    }
}

fn attention_inputs<'a>([q, k, v]: &'a [Flat; 3], bias: Option<&'a Flat>) -> attention::Inputs<'a> {
    attention::Inputs { q: values(q), k: values(k), v: values(v), bias: bias.map(values) }
}
