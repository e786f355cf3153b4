//! T5 on the CPU: burn's flex tensors and autodiff tape, with this crate's kernels as operations.

mod tape;

use burn::tensor::{DType, Shape, TensorData};
use burn_flex::FlexTensor;
use fusion_core::HostTensor;
use t5_model::Ops;
use t5_model::backend::kernels::attention::{self, attention, attention_gradient};
use t5_model::backend::kernels::{activation, cross_entropy, elementwise, embedding, matmul, norm};
use t5_model::backend::{
    Attention, Buckets, CrossEntropy, DropoutDraw, Pending, Positions, TokenIds, TokenLoss,
};
use t5_model::optimizer::{Moments, ParameterUpdate, sum_of_squares};

use tape::{Node, record};

/// The operations; knows whether they are recorded.
#[derive(Default)]
pub struct FlexOps {
    recording: bool,
}

impl FlexOps {
    /// A parameter as an operation's input.
    fn input(&self, parameter: &Node) -> Node {
        if self.recording { parameter.clone() } else { Node::new(parameter.primitive().clone()) }
    }
}

fn tensor(data: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(data, shape.into()))
}

/// A tensor's elements in order. Gradients that burn has summed may come as views.
fn values(tensor: &FlexTensor) -> std::borrow::Cow<'_, [f32]> {
    match tensor.as_slice::<f32>() {
        Some(values) => values.into(),
        None => tensor.to_contiguous().storage::<f32>().to_vec().into(),
    }
}

fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    let mut dims = [1; D];
    dims.copy_from_slice(&tensor.layout().shape().to_vec());
    dims
}

fn host(tensor: &FlexTensor) -> HostTensor {
    HostTensor { shape: tensor.layout().shape().to_vec(), data: values(tensor).into_owned() }
}

impl Ops for FlexOps {
    type Parameter = Node;
    type Activation = Node;
    type Bias = Node;
    type Loss = Node;
    type Gradient = FlexTensor;
    type Moment = HostTensor;

    fn parameter(&self, HostTensor { shape, data }: HostTensor) -> Node {
        Node::new(tensor(data, shape)).require_grad()
    }

    fn read_parameter(&self, parameter: &Node) -> HostTensor {
        host(parameter.primitive())
    }

    fn read_activation(&self, activation: &Node) -> HostTensor {
        host(activation.primitive())
    }

    fn gradient(&self, HostTensor { shape, data }: HostTensor) -> FlexTensor {
        tensor(data, shape)
    }

    fn read_gradient(&self, gradient: &FlexTensor) -> HostTensor {
        host(gradient)
    }

    fn record(&mut self, on: bool) {
        self.recording = on;
    }

    fn embedding(&self, table: &Node, TokenIds { ids, batch, length }: TokenIds<'_>) -> Node {
        let table = self.input(table);
        let [rows, features] = dims(table.primitive());
        let y = embedding::embedding(&values(table.primitive()), features, ids);
        let ids = ids.to_vec();
        record([&table], tensor(y, [batch, length, features]), move |dy, _| {
            let dtable = embedding::embedding_gradient(&values(&dy), rows, features, &ids);
            [Some(tensor(dtable, [rows, features]))]
        })
    }

    fn linear(&self, x: &Node, weight: &Node) -> Node {
        let weight = self.input(weight);
        let [batch, length, inputs] = dims(x.primitive());
        let [outputs, _] = dims(weight.primitive());
        let y = matmul::linear(&values(x.primitive()), &values(weight.primitive()), inputs);
        let (saved_x, saved_weight) = (x.primitive().clone(), weight.primitive().clone());
        record([x, &weight], tensor(y, [batch, length, outputs]), move |dy, [want_x, want_weight]| {
            let dy = values(&dy);
            let dx = want_x.then(|| {
                let dx = matmul::linear_input_gradient(&dy, &values(&saved_weight), inputs);
                tensor(dx, [batch, length, inputs])
            });
            let dweight = want_weight.then(|| {
                let dweight = matmul::linear_weight_gradient(&dy, &values(&saved_x), inputs);
                tensor(dweight, [outputs, inputs])
            });
            [dx, dweight]
        })
    }

    fn rms_norm(&self, x: &Node, gain: &Node, groups: &[usize], epsilon: f32) -> Node {
        let gain = self.input(gain);
        let shape = dims::<3>(x.primitive());
        let y = norm::rms_norm(&values(x.primitive()), &values(gain.primitive()), groups, epsilon);
        let (saved_x, saved_gain) = (x.primitive().clone(), gain.primitive().clone());
        let groups = groups.to_vec();
        record([x, &gain], tensor(y, shape), move |dy, _| {
            let (x, gain) = (values(&saved_x), values(&saved_gain));
            let (dx, dgain) = norm::rms_norm_gradient(&x, &gain, &groups, epsilon, &values(&dy));
            [Some(tensor(dx, shape)), Some(tensor(dgain, [shape[2]]))]
        })
    }

    fn position_bias(&self, table: &Node, buckets: &Buckets) -> Node {
        let table = self.input(table);
        let [rows, heads] = dims(table.primitive());
        let bias = embedding::position_bias(&values(table.primitive()), heads, &buckets.ids);
        let ids = buckets.ids.clone();
        record([&table], tensor(bias, [heads, buckets.query, buckets.key]), move |dbias, _| {
            let dtable = embedding::position_bias_gradient(&values(&dbias), rows, &ids);
            [Some(tensor(dtable, [rows, heads]))]
        })
    }

    fn attention(&self, q: &Node, k: &Node, v: &Node, how: Attention<'_, Node>) -> Node {
        let [batch, query, inner] = dims(q.primitive());
        let [_, key, _] = dims(k.primitive());
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
        // A placeholder where there is no bias keeps the number of parents fixed; it is neither read nor
        // differentiated.
        let no_bias = Node::new(FlexTensor::empty(Shape::from([0]), DType::F32));
        let bias = how.bias.unwrap_or(&no_bias);
        let has_bias = how.bias.is_some();
        let parents = [q, k, v, bias];
        let saved = parents.map(|parent| parent.primitive().clone());
        let (y, log_sums) = attention(&shape, attention_inputs(&saved.each_ref().map(values), has_bias));
        let tracked = parents.iter().any(|parent| parent.is_tracked());
        let log_sums = if tracked { log_sums } else { Vec::new() };
        record(parents, tensor(y, [batch, query, inner]), move |dy, [_, _, _, want_bias]| {
            let saved = saved.each_ref().map(values);
            let inputs = attention_inputs(&saved, has_bias);
            let gradients = attention_gradient(&shape, inputs, &log_sums, &values(&dy));
            let dbias = gradients.bias.filter(|_| want_bias);
            [
                Some(tensor(gradients.q, [batch, query, inner])),
                Some(tensor(gradients.k, [batch, key, inner])),
                Some(tensor(gradients.v, [batch, key, inner])),
                dbias.map(|dbias| tensor(dbias, [shape.heads, query, key])),
            ]
        })
    }

    fn gated_gelu(&self, gate: &Node, value: &Node) -> Node {
        let shape = dims::<3>(gate.primitive());
        let y = activation::gated_gelu(&values(gate.primitive()), &values(value.primitive()));
        let (saved_gate, saved_value) = (gate.primitive().clone(), value.primitive().clone());
        record([gate, value], tensor(y, shape), move |dy, _| {
            let (gate, value) = (values(&saved_gate), values(&saved_value));
            let (dgate, dvalue) = activation::gated_gelu_gradient(&gate, &value, &values(&dy));
            [Some(tensor(dgate, shape)), Some(tensor(dvalue, shape))]
        })
    }

    fn relu(&self, x: &Node) -> Node {
        let shape = dims::<3>(x.primitive());
        let saved_x = x.primitive().clone();
        let y = elementwise::map(&values(&saved_x), |x| x.max(0.0));
        record([x], tensor(y, shape), move |dy, _| {
            let dx =
                elementwise::zip(&values(&saved_x), &values(&dy), |x, dy| if x > 0.0 { dy } else { 0.0 });
            [Some(tensor(dx, shape))]
        })
    }

    fn add(&self, x: &Node, y: &Node) -> Node {
        let sum = elementwise::zip(&values(x.primitive()), &values(y.primitive()), |x, y| x + y);
        record([x, y], tensor(sum, dims::<3>(x.primitive())), |dy, _| [Some(dy.clone()), Some(dy)])
    }

    fn scale(&self, x: &Node, factor: f32) -> Node {
        let scaled = move |x: &FlexTensor| {
            tensor(elementwise::map(&values(x), |x| x * factor), x.layout().shape().clone())
        };
        record([x], scaled(x.primitive()), move |dy, _| [Some(scaled(&dy))])
    }

    fn dropout(&self, x: &Node, draw: DropoutDraw) -> Node {
        let dropped =
            move |x: &FlexTensor| tensor(elementwise::dropout(&values(x), &draw), x.layout().shape().clone());
        record([x], dropped(x.primitive()), move |dy, _| [Some(dropped(&dy))])
    }

    fn append(&self, x: &Node, y: &Node) -> Node {
        let ([batch, first, features], [_, second, _]) = (dims(x.primitive()), dims(y.primitive()));
        let (x, y) = (values(x.primitive()), values(y.primitive()));
        let rows = x.chunks(first * features).zip(y.chunks(second * features));
        let data = rows.flat_map(|(x, y)| [x, y]).flatten().copied().collect();
        Node::new(tensor(data, [batch, first + second, features]))
    }

    fn gather(&self, x: &Node, Positions { ids, batch, length }: &Positions) -> Node {
        let [_, _, features] = dims(x.primitive());
        let y = embedding::embedding(&values(x.primitive()), features, ids);
        Node::new(tensor(y, [*batch, *length, features]))
    }

    fn cross_entropy(
        &self,
        x: &Node,
        head: &Node,
        labels: &[i32],
        how: CrossEntropy,
    ) -> (Node, Pending<Vec<TokenLoss>>) {
        let head = self.input(head);
        let shape = dims::<3>(x.primitive());
        let head_shape = dims::<2>(head.primitive());
        let tracked = x.is_tracked() || head.is_tracked();
        let (loss, losses, gradients) = cross_entropy::cross_entropy(
            &values(x.primitive()),
            &values(head.primitive()),
            shape[2],
            labels,
            how,
            tracked,
        );
        let loss = record([x, &head], tensor(vec![loss as f32], [1]), move |dy, _| {
            let factor = values(&dy).first().copied().unwrap_or(1.0);
            let gradients = gradients.map(|gradients| gradients.scaled(factor));
            match gradients {
                Some(gradients) => {
                    [Some(tensor(gradients.x, shape)), Some(tensor(gradients.head, head_shape))]
                }
                None => [None, None],
            }
        });
        (loss, losses.into())
    }

    fn leaf(&self, x: &Node) -> Node {
        Node::new(x.primitive().clone()).require_grad()
    }

    fn product(&self, y: &Node, dy: &Node) -> Node {
        let dy = dy.primitive().clone();
        record([y], tensor(vec![0.0], [1]), move |_, _| [Some(dy)])
    }

    fn backward(&self, loss: Node, leaves: &[&Node], parameters: &[&Node]) -> (Vec<Node>, Vec<FlexTensor>) {
        let mut gradients = loss.backward();
        let mut take = |node: &Node| {
            let zeros = || FlexTensor::zeros(node.primitive().layout().shape().clone(), DType::F32);
            node.grad_remove(&mut gradients).unwrap_or_else(zeros)
        };
        let leaves = leaves.iter().map(|leaf| Node::new(take(leaf))).collect();
        (leaves, parameters.iter().map(|parameter| take(parameter)).collect())
    }

    fn accumulate(&self, total: &mut FlexTensor, gradient: FlexTensor) {
        if !total.is_contiguous() {
            *total = total.to_contiguous();
        }
        elementwise::add_to(total.storage_mut::<f32>(), &values(&gradient));
    }

    fn squared_norm(&self, gradients: &[FlexTensor]) -> f64 {
        gradients.iter().map(|gradient| sum_of_squares(&values(gradient))).sum()
    }

    fn moment(&self, tensor: HostTensor) -> HostTensor {
        tensor
    }

    fn read_moment(&self, moment: &HostTensor) -> HostTensor {
        moment.clone()
    }

    fn update(
        &self,
        parameter: &mut Node,
        gradient: FlexTensor,
        moments: &mut Moments<HostTensor>,
        update: &ParameterUpdate,
    ) {
        // Takes the weights out of their node so that they can be updated in place.
        let empty = Node::new(FlexTensor::empty(Shape::from([0]), DType::F32));
        let mut weights = std::mem::replace(parameter, empty).into_primitive();
        let shape = weights.layout().shape().to_vec();
        update.apply(&shape, weights.storage_mut::<f32>(), &values(&gradient), moments);
        *parameter = Node::new(weights).require_grad();
    }
}

fn attention_inputs<'a>(
    [q, k, v, bias]: &'a [std::borrow::Cow<'_, [f32]>; 4],
    has_bias: bool,
) -> attention::Inputs<'a> {
    attention::Inputs { q, k, v, bias: has_bias.then_some(bias) }
}
