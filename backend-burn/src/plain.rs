//! T5 in burn's own operations, on any of its devices. On the CPU the fused kernels are faster, and are
//! checked against these. The residual stream, norms, softmax and the loss are f32; between them, activations
//! have the computation's precision.

use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Bool, DType, Device, FloatDType, Gradients, Int, Tensor, TensorData};
use fusion_core::HostTensor;
use t5_model::backend::{
    Attention, Buckets, CrossEntropy, DropoutDraw, Pending, Positions, TokenIds, TokenLoss,
};
use t5_model::optimizer::{Moments, ParameterUpdate, UpdateRule};
use t5_model::{Ops, Precision};

use crate::cross_entropy::cross_entropy;
use crate::update::{adafactor, adamw, factored_adafactor, muon};

/// The operations on a device; knows whether they are recorded.
pub struct PlainOps {
    device: Device,
    /// The precision of matrix products.
    dtype: FloatDType,
    recording: bool,
}

/// A parameter, its gradient or a moment as a matrix; a vector becomes one row.
pub struct PlainMatrix {
    tensor: Tensor<2>,
    shape: Vec<usize>,
}

impl PlainOps {
    pub fn new(device: Device, precision: Precision) -> Self {
        let dtype = match precision {
            Precision::F32 => FloatDType::F32,
            Precision::Bf16 => FloatDType::BF16,
        };
        PlainOps { device: device.autodiff(), dtype, recording: false }
    }

    /// The device for inputs from the host.
    fn device(&self) -> Device {
        if self.recording { self.device.clone() } else { self.device.clone().inner() }
    }

    fn matrix(&self, HostTensor { shape, data }: HostTensor, device: &Device) -> PlainMatrix {
        let columns = shape.last().copied().unwrap_or(1);
        let matrix = [data.len() / columns, columns];
        PlainMatrix { tensor: Tensor::from_data(TensorData::new(data, matrix), device), shape }
    }

    fn input(&self, parameter: &PlainMatrix) -> Tensor<2> {
        if self.recording { parameter.tensor.clone() } else { parameter.tensor.clone().inner() }
    }

    fn integers(&self, values: impl IntoIterator<Item = i32>) -> Tensor<1, Int> {
        let values: Vec<i32> = values.into_iter().collect();
        let len = values.len();
        Tensor::from_data(TensorData::new(values, [len]), &self.device())
    }

    fn floats<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), &self.device())
    }

    /// True where a key is hidden, `[batch or 1, 1, query, key]`.
    fn hidden(&self, hidden: Vec<bool>, shape: [usize; 4]) -> Tensor<4, Bool> {
        Tensor::from_data(TensorData::new(hidden, shape), &self.device())
    }
}

fn cast<const D: usize>(x: Tensor<D>, to: impl Into<DType>) -> Tensor<D> {
    let to = to.into();
    if x.dtype() == to { x } else { x.cast(FloatDType::from(to)) }
}

/// Converts to f32, for values that are rounded no further.
fn exact<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    cast(x, FloatDType::F32)
}

fn host<const D: usize>(tensor: &Tensor<D>, shape: Vec<usize>) -> HostTensor {
    let data = tensor.clone().into_data().iter::<f32>().collect();
    HostTensor { shape, data }
}

/// The same matrix stored row by row. GPUs keep results derived from a transposed gradient transposed, up to
/// the weights, whose products would then be summed in another order than after loading a checkpoint.
fn row_by_row(matrix: Tensor<2>) -> Tensor<2> {
    let shape = matrix.dims();
    matrix.reshape([shape[0] * shape[1]]).reshape(shape)
}

/// `[batch, heads, length, d_kv]`.
fn split_heads(x: &Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, length, inner] = x.dims();
    x.clone().reshape([batch, length, heads, inner / heads]).swap_dims(1, 2)
}

impl Ops for PlainOps {
    type Parameter = PlainMatrix;
    type Activation = Tensor<3>;
    type Bias = Tensor<3>;
    type Loss = Tensor<1>;
    type Gradient = PlainMatrix;
    type Moment = PlainMatrix;

    fn parameter(&self, tensor: HostTensor) -> PlainMatrix {
        let PlainMatrix { tensor, shape } = self.matrix(tensor, &self.device);
        PlainMatrix { tensor: tensor.require_grad(), shape }
    }

    fn read_parameter(&self, parameter: &PlainMatrix) -> HostTensor {
        host(&parameter.tensor, parameter.shape.clone())
    }

    fn read_activation(&self, activation: &Tensor<3>) -> HostTensor {
        host(activation, activation.dims().to_vec())
    }

    fn gradient(&self, tensor: HostTensor) -> PlainMatrix {
        self.matrix(tensor, &self.device.clone().inner())
    }

    fn read_gradient(&self, gradient: &PlainMatrix) -> HostTensor {
        host(&gradient.tensor, gradient.shape.clone())
    }

    fn record(&mut self, on: bool) {
        self.recording = on;
    }

    fn embedding(&self, table: &PlainMatrix, TokenIds { ids, batch, length }: TokenIds<'_>) -> Tensor<3> {
        let table = self.input(table);
        let features = table.dims()[1];
        table.select(0, self.integers(ids.iter().copied())).reshape([batch, length, features])
    }

    fn linear(&self, x: &Tensor<3>, weight: &PlainMatrix) -> Tensor<3> {
        let (x, weight) = (cast(x.clone(), self.dtype), cast(self.input(weight), self.dtype));
        let ([batch, length, inputs], [outputs, _]) = (x.dims(), weight.dims());
        // Flattened: burn would broadcast the weight over the batch.
        x.reshape([batch * length, inputs]).matmul(weight.transpose()).reshape([batch, length, outputs])
    }

    fn rms_norm(&self, x: &Tensor<3>, gain: &PlainMatrix, groups: &[usize], epsilon: f32) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        let x = exact(x.clone());
        let mut at = 0;
        let normed = groups.iter().map(|&group| {
            let x = x.clone().slice([0..batch, 0..length, at..at + group]);
            at += group;
            let scale = (x.clone().square().mean_dim(2) + epsilon).sqrt().recip(); // [batch, length, 1]
            x * scale
        });
        cast(Tensor::cat(normed.collect(), 2) * self.input(gain).unsqueeze::<3>(), self.dtype)
    }

    fn position_bias(&self, table: &PlainMatrix, buckets: &Buckets) -> Tensor<3> {
        let table = self.input(table);
        let heads = table.dims()[1];
        let rows = table.select(0, self.integers(buckets.ids.iter().map(|id| *id as i32)));
        rows.reshape([buckets.query, buckets.key, heads]).permute([2, 0, 1])
    }

    fn attention(
        &self,
        q: &Tensor<3>,
        k: &Tensor<3>,
        v: &Tensor<3>,
        how: Attention<'_, Tensor<3>>,
    ) -> Tensor<3> {
        let ([batch, query, inner], [_, key, _]) = (q.dims(), k.dims());
        let [q, k, v] = [q, k, v].map(|x| cast(split_heads(x, how.heads), self.dtype)); // [batch, heads, length, d_kv]
        let mut scores = exact(q.matmul(k.swap_dims(2, 3))); // [batch, heads, query, key]
        if let Some(bias) = how.bias {
            scores = scores + bias.clone().unsqueeze::<4>();
        }
        if let Some(mask) = how.key_mask {
            let hidden = self.hidden(mask.iter().map(|mask| *mask == 0).collect(), [batch, 1, 1, key]);
            scores = scores.mask_fill(hidden.expand([batch, how.heads, query, key]), -1e30);
        }
        if how.causal {
            let hidden = (0..query).flat_map(|i| (0..key).map(move |j| j + query > i + key)).collect();
            let hidden = self.hidden(hidden, [1, 1, query, key]);
            scores = scores.mask_fill(hidden.expand([batch, how.heads, query, key]), -1e30);
        }
        let mut probabilities = softmax(scores, 3);
        if let Some(draw) = how.dropout {
            let shape = probabilities.dims();
            probabilities = probabilities * self.floats(draw.first_factors(shape.iter().product()), shape);
        }
        cast(probabilities, self.dtype).matmul(v).swap_dims(1, 2).reshape([batch, query, inner])
    }

    fn gated_gelu(&self, gate: &Tensor<3>, value: &Tensor<3>) -> Tensor<3> {
        let (x, value) = (exact(gate.clone()), exact(value.clone()));
        let cubic = x.clone().square() * (0.044_715 * 0.797_884_6) + 0.797_884_6;
        let tanh = (x.clone() * cubic).tanh();
        cast(x * 0.5 * (tanh + 1.0) * value, self.dtype)
    }

    fn relu(&self, x: &Tensor<3>) -> Tensor<3> {
        relu(x.clone())
    }

    fn add(&self, x: &Tensor<3>, y: &Tensor<3>) -> Tensor<3> {
        // The residual stream keeps its precision.
        if x.dtype() == y.dtype() { x.clone() + y.clone() } else { exact(x.clone()) + exact(y.clone()) }
    }

    fn scale(&self, x: &Tensor<3>, factor: f32) -> Tensor<3> {
        x.clone() * factor
    }

    fn dropout(&self, x: &Tensor<3>, draw: DropoutDraw) -> Tensor<3> {
        let shape = x.dims();
        let factors = self.floats(draw.first_factors(shape.iter().product()), shape);
        x.clone() * cast(factors, x.dtype())
    }

    fn append(&self, x: &Tensor<3>, y: &Tensor<3>) -> Tensor<3> {
        Tensor::cat(vec![x.clone(), y.clone()], 1)
    }

    fn gather(&self, x: &Tensor<3>, Positions { ids, batch, length }: &Positions) -> Tensor<3> {
        let [rows, positions, features] = x.dims();
        let x = x.clone().reshape([rows * positions, features]);
        x.select(0, self.integers(ids.iter().copied())).reshape([*batch, *length, features])
    }

    fn cross_entropy(
        &self,
        x: &Tensor<3>,
        head: &PlainMatrix,
        labels: &[i32],
        how: CrossEntropy,
    ) -> (Tensor<1>, Pending<Vec<TokenLoss>>) {
        let features = x.dims()[2];
        let (value, weight) = match self.recording {
            true => (x.clone().inner(), head.tensor.clone().inner()),
            false => (x.clone(), self.input(head)),
        };
        let value = cast(value.reshape([labels.len(), features]), self.dtype);
        let (losses, gradients) = cross_entropy(value, cast(weight, self.dtype), labels, how, self.recording);
        let Some([dx, dhead]) = gradients else {
            return (Tensor::zeros([1], &self.device()), losses.into());
        };
        // A surrogate whose gradients are these.
        let dx = cast(dx.reshape(x.dims()), x.dtype());
        let by_x = self.product(x, &dx);
        (exact(by_x) + (self.input(head) * dhead.autodiff()).sum(), losses.into())
    }

    fn leaf(&self, x: &Tensor<3>) -> Tensor<3> {
        let x = x.clone();
        let alone = if x.device().is_autodiff() { x.detach() } else { x.autodiff() };
        alone.require_grad()
    }

    fn product(&self, y: &Tensor<3>, dy: &Tensor<3>) -> Tensor<1> {
        (y.clone() * cast(dy.clone(), y.dtype()).autodiff()).sum()
    }

    fn backward(
        &self,
        loss: Tensor<1>,
        leaves: &[&Tensor<3>],
        parameters: &[&PlainMatrix],
    ) -> (Vec<Tensor<3>>, Vec<PlainMatrix>) {
        let mut gradients: Gradients = loss.backward();
        let leaf = |leaf: &&Tensor<3>| {
            leaf.grad_remove(&mut gradients).unwrap_or_else(|| (*leaf).clone().inner().zeros_like())
        };
        let leaves = leaves.iter().map(leaf).collect();
        let take = |parameter: &&PlainMatrix| {
            let gradient = parameter.tensor.grad_remove(&mut gradients);
            let tensor = gradient.unwrap_or_else(|| parameter.tensor.clone().inner().zeros_like());
            PlainMatrix { tensor: row_by_row(tensor), shape: parameter.shape.clone() }
        };
        (leaves, parameters.iter().map(take).collect())
    }

    fn accumulate(&self, total: &mut PlainMatrix, gradient: PlainMatrix) {
        total.tensor = total.tensor.clone() + gradient.tensor;
    }

    fn squared_norm(&self, gradients: &[PlainMatrix]) -> f64 {
        // All transfers are started before the host waits for them.
        let sums: Vec<Tensor<1>> =
            gradients.iter().map(|gradient| gradient.tensor.clone().square().sum()).collect();
        if sums.is_empty() {
            return 0.0;
        }
        Tensor::cat(sums, 0).into_data().iter::<f32>().map(f64::from).sum()
    }

    fn moment(&self, tensor: HostTensor) -> PlainMatrix {
        self.matrix(tensor, &self.device.clone().inner())
    }

    fn read_moment(&self, moment: &PlainMatrix) -> HostTensor {
        host(&moment.tensor, moment.shape.clone())
    }

    fn update(
        &self,
        parameter: &mut PlainMatrix,
        gradient: PlainMatrix,
        moments: &mut Moments<PlainMatrix>,
        update: &ParameterUpdate,
    ) {
        let weights = parameter.tensor.clone().inner();
        let zeros = |shape: &[usize]| self.moment(HostTensor::zeros(shape));
        let weights = match update.rule(&parameter.shape) {
            UpdateRule::Adamw(step) => {
                let (mean, squares) = moments.mean_and_squares(&parameter.shape, zeros);
                adamw(step, weights, gradient.tensor, &mut mean.tensor, &mut squares.tensor)
            }
            UpdateRule::Adafactor(step) if step.factored => {
                let (rows, columns) = moments.rows_and_columns(&parameter.shape, zeros);
                factored_adafactor(step, weights, gradient.tensor, &mut rows.tensor, &mut columns.tensor)
            }
            UpdateRule::Adafactor(step) => {
                let squares = moments.squares(&parameter.shape, zeros);
                adafactor(step, weights, gradient.tensor, &mut squares.tensor)
            }
            UpdateRule::Muon(step) => {
                let mean = moments.mean(&parameter.shape, zeros);
                muon(step, weights, gradient.tensor, &mut mean.tensor)
            }
        };
        parameter.tensor = weights.autodiff().require_grad();
    }
}
