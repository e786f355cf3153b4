//! T5's operations on dfdx's tensors and tape, computed by this workspace's kernels. That includes matrix
//! products: with dfdx's own, based on an older `gemm`, a training step takes 1.8 times as long.

use dfdx::prelude::*;
use fusion_core::HostTensor;
use t5_model::Ops;
use t5_model::backend::kernels::attention::{self, attention, attention_gradient};
use t5_model::backend::kernels::{activation, cross_entropy, elementwise, embedding, matmul, norm};
use t5_model::backend::{
    Attention, Buckets, CrossEntropy, DropoutDraw, Pending, Positions, TokenIds, TokenLoss,
};
use t5_model::optimizer::{Moments, ParameterUpdate, sum_of_squares};

use crate::tape::{Recorder, take_gradient};
use crate::tensor::{Matrix, Node, Slot, host, tensor, values, values_mut};

/// `[batch, length, features]`, or `[heads, query, key]`.
type Activation = Node<(usize, usize, usize)>;

/// The operations, with the tape they record on.
#[derive(Default)]
pub struct DfdxOps {
    device: Cpu,
    tape: Recorder,
}

/// A parameter as a matrix; a gain has one row.
pub struct Parameter {
    matrix: Node<(usize, usize)>,
    shape: Vec<usize>,
}

/// A gradient as a matrix.
pub struct Gradient {
    matrix: Matrix,
    shape: Vec<usize>,
}

impl DfdxOps {
    /// The result of an operation, see [`Recorder::append`].
    fn record<const N: usize>(
        &self,
        parents: [&Slot; N],
        y: Vec<f32>,
        shape: (usize, usize, usize),
        backward: impl FnOnce(Vec<f32>) -> [Vec<f32>; N] + 'static,
    ) -> Activation {
        let y = Node::new(tensor(&self.device, y, shape));
        self.tape.append(parents, &y.gradient, backward);
        y
    }
}

impl Ops for DfdxOps {
    type Parameter = Parameter;
    type Activation = Activation;
    type Bias = Activation;
    type Loss = Tensor<Rank0, f32, Cpu>;
    type Gradient = Gradient;
    type Moment = HostTensor;

    fn parameter(&self, HostTensor { shape, data }: HostTensor) -> Parameter {
        let columns = shape.last().copied().unwrap_or(1);
        let rows = data.len() / columns;
        Parameter { matrix: Node::new(tensor(&self.device, data, (rows, columns))), shape }
    }

    fn read_parameter(&self, Parameter { matrix, shape }: &Parameter) -> HostTensor {
        host(&matrix.tensor, shape)
    }

    fn read_activation(&self, Node { tensor, .. }: &Activation) -> HostTensor {
        host(tensor, &tensor.shape().concrete())
    }

    fn gradient(&self, HostTensor { shape, data }: HostTensor) -> Gradient {
        let columns = shape.last().copied().unwrap_or(1);
        let rows = data.len() / columns;
        Gradient { matrix: tensor(&self.device, data, (rows, columns)), shape }
    }

    fn read_gradient(&self, Gradient { matrix, shape }: &Gradient) -> HostTensor {
        host(matrix, shape)
    }

    fn record(&mut self, on: bool) {
        self.tape.record(on);
    }

    fn embedding(
        &self,
        Parameter { matrix: table, .. }: &Parameter,
        TokenIds { ids, batch, length }: TokenIds<'_>,
    ) -> Activation {
        let (rows, features) = *table.tensor.shape();
        let y = embedding::embedding(values(&table.tensor), features, ids);
        let ids = ids.to_vec();
        self.record([&table.gradient], y, (batch, length, features), move |dy| {
            [embedding::embedding_gradient(&dy, rows, features, &ids)]
        })
    }

    fn linear(&self, x: &Activation, Parameter { matrix: weight, .. }: &Parameter) -> Activation {
        let ((batch, length, inputs), (outputs, _)) = (*x.tensor.shape(), *weight.tensor.shape());
        let y = matmul::linear(values(&x.tensor), values(&weight.tensor), inputs);
        let (saved_x, saved_weight) = (x.tensor.clone(), weight.tensor.clone());
        self.record([&x.gradient, &weight.gradient], y, (batch, length, outputs), move |dy| {
            let dx = matmul::linear_input_gradient(&dy, values(&saved_weight), inputs);
            [dx, matmul::linear_weight_gradient(&dy, values(&saved_x), inputs)]
        })
    }

    fn rms_norm(
        &self,
        x: &Activation,
        Parameter { matrix: gain, .. }: &Parameter,
        groups: &[usize],
        epsilon: f32,
    ) -> Activation {
        let y = norm::rms_norm(values(&x.tensor), values(&gain.tensor), groups, epsilon);
        let (saved_x, saved_gain, groups) = (x.tensor.clone(), gain.tensor.clone(), groups.to_vec());
        self.record([&x.gradient, &gain.gradient], y, *x.tensor.shape(), move |dy| {
            norm::rms_norm_gradient(values(&saved_x), values(&saved_gain), &groups, epsilon, &dy).into()
        })
    }

    fn position_bias(&self, Parameter { matrix: table, .. }: &Parameter, buckets: &Buckets) -> Activation {
        let (rows, heads) = *table.tensor.shape();
        let bias = embedding::position_bias(values(&table.tensor), heads, &buckets.ids);
        let ids = buckets.ids.clone();
        self.record([&table.gradient], bias, (heads, buckets.query, buckets.key), move |dbias| {
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
        let ((batch, query, inner), (_, key, _)) = (*q.tensor.shape(), *k.tensor.shape());
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
        let saved = Saved {
            qkv: [q, k, v].map(|parent| parent.tensor.clone()),
            bias: how.bias.map(|bias| bias.tensor.clone()),
        };
        let (y, log_sums) = attention(&shape, saved.inputs());
        let gradients = move |dy: Vec<f32>| attention_gradient(&shape, saved.inputs(), &log_sums, &dy);
        let ([q, k, v], shape) = ([q, k, v].map(|parent| &parent.gradient), (batch, query, inner));
        match how.bias {
            None => self.record([q, k, v], y, shape, move |dy| {
                let attention::Gradients { q, k, v, .. } = gradients(dy);
                [q, k, v]
            }),
            Some(bias) => self.record([q, k, v, &bias.gradient], y, shape, move |dy| {
                let attention::Gradients { q, k, v, bias } = gradients(dy);
                [q, k, v, bias.expect("attention with a bias has its gradient")]
            }),
        }
    }

    fn gated_gelu(&self, gate: &Activation, value: &Activation) -> Activation {
        let y = activation::gated_gelu(values(&gate.tensor), values(&value.tensor));
        let (saved_gate, saved_value) = (gate.tensor.clone(), value.tensor.clone());
        self.record([&gate.gradient, &value.gradient], y, *gate.tensor.shape(), move |dy| {
            activation::gated_gelu_gradient(values(&saved_gate), values(&saved_value), &dy).into()
        })
    }

    fn relu(&self, x: &Activation) -> Activation {
        let y = elementwise::map(values(&x.tensor), |x| x.max(0.0));
        let saved = x.tensor.clone();
        self.record([&x.gradient], y, *x.tensor.shape(), move |dy| {
            [elementwise::zip(values(&saved), &dy, |x, dy| if x > 0.0 { dy } else { 0.0 })]
        })
    }

    fn add(&self, x: &Activation, y: &Activation) -> Activation {
        let sum = elementwise::zip(values(&x.tensor), values(&y.tensor), |x, y| x + y);
        self.record([&x.gradient, &y.gradient], sum, *x.tensor.shape(), |dy| [dy.clone(), dy])
    }

    fn scale(&self, x: &Activation, factor: f32) -> Activation {
        let scaled = move |x: &[f32]| elementwise::map(x, |x| x * factor);
        self.record([&x.gradient], scaled(values(&x.tensor)), *x.tensor.shape(), move |dy| [scaled(&dy)])
    }

    fn dropout(&self, x: &Activation, draw: DropoutDraw) -> Activation {
        let dropped = move |x: &[f32]| elementwise::dropout(x, &draw);
        self.record([&x.gradient], dropped(values(&x.tensor)), *x.tensor.shape(), move |dy| [dropped(&dy)])
    }

    fn append(&self, Node { tensor: x, .. }: &Activation, Node { tensor: y, .. }: &Activation) -> Activation {
        let ((batch, first, features), (_, second, _)) = (*x.shape(), *y.shape());
        let rows = values(x).chunks(first * features).zip(values(y).chunks(second * features));
        let data = rows.flat_map(|(x, y)| [x, y]).flatten().copied().collect();
        Node::new(tensor(&self.device, data, (batch, first + second, features)))
    }

    fn gather(
        &self,
        Node { tensor: x, .. }: &Activation,
        Positions { ids, batch, length }: &Positions,
    ) -> Activation {
        let (_, _, features) = *x.shape();
        let y = embedding::embedding(values(x), features, ids);
        Node::new(tensor(&self.device, y, (*batch, *length, features)))
    }

    fn cross_entropy(
        &self,
        x: &Activation,
        Parameter { matrix: head, .. }: &Parameter,
        labels: &[i32],
        how: CrossEntropy,
    ) -> (Tensor<Rank0, f32, Cpu>, Pending<Vec<TokenLoss>>) {
        let (_, _, features) = *x.tensor.shape();
        let (inputs, weight, recording) = (values(&x.tensor), values(&head.tensor), self.tape.is_recording());
        let (loss, losses, gradients) =
            cross_entropy::cross_entropy(inputs, weight, features, labels, how, recording);
        let loss = tensor(&self.device, vec![loss as f32], ());
        self.tape.append([&x.gradient, &head.gradient], &loss, move |dy| {
            let gradients = gradients.expect("what is recorded has gradients");
            let cross_entropy::HeadGradients { x, head } = gradients.scaled(dy[0]);
            [x, head]
        });
        (loss, losses.into())
    }

    fn leaf(&self, x: &Activation) -> Activation {
        Node::new(x.tensor.clone())
    }

    fn product(&self, y: &Activation, dy: &Activation) -> Tensor<Rank0, f32, Cpu> {
        let loss = tensor(&self.device, vec![0.0], ());
        let dy = dy.tensor.clone();
        self.tape.append([&y.gradient], &loss, move |_| [values(&dy).to_vec()]);
        loss
    }

    fn backward(
        &self,
        loss: Tensor<Rank0, f32, Cpu>,
        leaves: &[&Activation],
        parameters: &[&Parameter],
    ) -> (Vec<Activation>, Vec<Gradient>) {
        let mut gradients = self.tape.backward(loss);
        let leaves = leaves.iter().map(|leaf| Node::new(take_gradient(&mut gradients, leaf))).collect();
        let take = |Parameter { matrix, shape }: &&Parameter| Gradient {
            matrix: take_gradient(&mut gradients, matrix),
            shape: shape.clone(),
        };
        (leaves, parameters.iter().map(take).collect())
    }

    fn accumulate(&self, total: &mut Gradient, gradient: Gradient) {
        elementwise::add_to(values_mut(&mut total.matrix), values(&gradient.matrix));
    }

    fn squared_norm(&self, gradients: &[Gradient]) -> f64 {
        gradients.iter().map(|gradient| sum_of_squares(values(&gradient.matrix))).sum()
    }

    fn moment(&self, tensor: HostTensor) -> HostTensor {
        tensor
    }

    fn read_moment(&self, moment: &HostTensor) -> HostTensor {
        moment.clone()
    }

    fn update(
        &self,
        Parameter { matrix, shape }: &mut Parameter,
        gradient: Gradient,
        moments: &mut Moments<HostTensor>,
        update: &ParameterUpdate,
    ) {
        update.apply(shape, values_mut(&mut matrix.tensor), values(&gradient.matrix), moments);
    }
}

/// What attention keeps for its gradients.
struct Saved {
    qkv: [Tensor<(usize, usize, usize), f32, Cpu>; 3],
    bias: Option<Tensor<(usize, usize, usize), f32, Cpu>>,
}

impl Saved {
    fn inputs(&self) -> attention::Inputs<'_> {
        let [q, k, v] = self.qkv.each_ref().map(values);
        attention::Inputs { q, k, v, bias: self.bias.as_ref().map(values) }
    }
}
