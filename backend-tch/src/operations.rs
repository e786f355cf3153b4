//! T5's operations in libtorch's, and in our own kernels on a GPU. The residual stream and all norms are f32;
//! between them, activations have the computation's precision.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use fusion_core::HostTensor;
use t5_model::backend::{
    Attention, Buckets, CrossEntropy, DropoutDraw, GroupError, Pending, Place, Positions, ProcessGroup,
    Reducing, Tape, TokenIds, TokenLoss, Trained, all_reduce_on_host, update_each,
};
use t5_model::optimizer::{Moments, ParameterUpdate, Role, UpdateRule, sum_of_squares};
use t5_model::{Ops, Precision, Update};
use tch::{Device, Kind, Tensor};

use crate::bias::Bias;
use crate::cross_entropy::{cross_entropy, token_losses};
use crate::cuda::{Averages, Kernels, Rule, Updated};
use crate::memory;
use crate::node::{Gradient, Node};
use crate::norm;
use crate::parameter::{Parameter, joined};
use crate::process_group::Gloo;
use crate::product::{matmul, product_in_f32};
use crate::tensor::{beside, elements, elements_mut, host, integers, sizes, upload};
use crate::update::{Moment, update_on_device};

/// The operations on a device, with what they recorded.
pub struct TchOps {
    pub device: Device,
    /// The type of matrix products.
    pub kind: Kind,
    pub tape: Tape<Gradient>,
    /// Our own kernels, on GPUs that can run them.
    pub kernels: Option<Rc<Kernels>>,
    /// The padding mask that attention saw last: it is the same for all blocks.
    pub mask: RefCell<Option<(Vec<u8>, Tensor)>>,
    /// Whether all gradient norms so far were finite, for updates on the device; an f64.
    healthy: OnceCell<Tensor>,
}

/// Where the backward pass begins, and with which gradient.
pub struct Loss {
    place: Option<Place>,
    gradient: Tensor,
}

impl TchOps {
    pub fn new(device: Device, precision: Precision, kernels: Option<Rc<Kernels>>) -> Self {
        let kind = match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        let (mask, healthy) = Default::default();
        TchOps { device, kind, tape: Tape::default(), kernels, mask, healthy }
    }

    /// Whether what libtorch has no single operation for is computed on slices in the host's memory.
    pub fn works_on_host(&self) -> bool {
        self.device == Device::Cpu && self.kernels.is_none()
    }

    pub fn place(&self, parameter: &Parameter) -> Option<Place> {
        self.tape.is_recording().then_some(parameter.place)
    }

    /// The result of an operation. Gradients are returned in the types of its inputs.
    pub fn node<const N: usize>(
        &self,
        value: Tensor,
        inputs: [(Option<Place>, Kind); N],
        backward: impl FnOnce(Tensor, [bool; N]) -> [Option<Tensor>; N] + 'static,
    ) -> Node {
        let kinds = inputs.map(|(_, kind)| kind);
        let place = self.tape.step(inputs.map(|(place, _)| place), move |gradient, wanted| {
            let mut kinds = kinds.into_iter();
            backward(gradient.value, wanted).map(|gradient| {
                let kind = kinds.next().unwrap_or(Kind::Float);
                gradient.map(|gradient| gradient.to_kind(kind).into())
            })
        });
        Node::new(value, place)
    }

    /// Numbers on the device, i32.
    pub fn integers(&self, numbers: &[i32]) -> Tensor {
        match &self.kernels {
            Some(kernels) => kernels.upload(numbers),
            None => integers(numbers, self.device),
        }
    }

    pub fn factors(&self, draw: &DropoutDraw, shape: &[i64]) -> Tensor {
        match &self.kernels {
            Some(kernels) => kernels.dropout_factors(shape, draw),
            None => {
                let factors = draw.first_factors(shape.iter().product::<i64>() as usize);
                upload(&factors, shape, self.device)
            }
        }
    }
}

/// `[batch · length, features]`.
pub fn rows(x: &Tensor) -> Tensor {
    x.reshape([-1, x.size().last().copied().unwrap_or(1)])
}

impl Ops for TchOps {
    type Parameter = Parameter;
    type Activation = Node;
    type Bias = Bias;
    type Loss = Loss;
    type Gradient = Tensor;
    type Moment = Moment;

    fn parameter(&self, HostTensor { shape, data }: HostTensor) -> Parameter {
        Parameter::new(upload(&data, &sizes(&shape), self.device), self.tape.place())
    }

    fn read_parameter(&self, parameter: &Parameter) -> HostTensor {
        host(&parameter.value())
    }

    fn write_parameter(&self, parameter: &mut Parameter, HostTensor { shape, data }: HostTensor) {
        parameter.both().0.copy_(&upload(&data, &sizes(&shape), self.device));
        parameter.round();
    }

    fn read_activation(&self, activation: &Node) -> HostTensor {
        host(&activation.value())
    }

    fn gradient(&self, HostTensor { shape, data }: HostTensor) -> Tensor {
        upload(&data, &sizes(&shape), self.device)
    }

    fn read_gradient(&self, gradient: &Tensor) -> HostTensor {
        host(gradient)
    }

    fn all_reduce<'a>(
        &'a self,
        group: &'a dyn ProcessGroup,
        gradients: Vec<Tensor>,
    ) -> Result<Reducing<'a, Vec<Tensor>>, GroupError> {
        let Some(ranks) = Gloo::of(group) else { return all_reduce_on_host(self, group, gradients) };
        let flat: Vec<Tensor> = gradients.iter().map(|gradient| gradient.reshape([-1])).collect();
        let sums = ranks.all_reduce_tensor(Tensor::cat(&flat, 0))?;
        let shapes: Vec<Vec<i64>> = gradients.iter().map(Tensor::size).collect();
        Ok(Box::new(move || {
            let sizes: Vec<i64> = shapes.iter().map(|shape| shape.iter().product()).collect();
            let parts = sums()?.split_with_sizes(sizes.as_slice(), 0).into_iter().zip(shapes);
            Ok(parts.map(|(part, shape)| part.view(shape.as_slice())).collect())
        }))
    }

    fn record(&mut self, on: bool) {
        self.tape.record(on);
    }

    fn embedding(&self, table: &Parameter, TokenIds { ids, batch, length }: TokenIds<'_>) -> Node {
        let value = table.value();
        let size = value.size();
        let (rows, features) = (size[0], size[1]);
        let on_device = self.integers(ids);
        let y = value.index_select(0, &on_device).view([batch as i64, length as i64, features]);
        let inputs = [(self.place(table), Kind::Float)];
        if let Some(kernels) = self.kernels.clone().filter(|kernels| kernels.can_embed(features)) {
            // libtorch's sums vary from run to run.
            let ids = ids.to_vec();
            return self.node(y, inputs, move |dy, _| {
                let dy = dy.to_kind(Kind::Float).contiguous();
                [Some(kernels.embedding_gradient(&dy, &ids, rows, features))]
            });
        }
        self.node(y, inputs, move |dy, _| {
            let dy = dy.to_kind(Kind::Float).view([-1, features]);
            [Some(Tensor::embedding_dense_backward(&dy, &on_device, rows, -1, false))]
        })
    }

    fn linear(&self, x: &Node, weight: &Parameter) -> Node {
        let [y] = self.linears(x, [weight]);
        y
    }

    fn linears<const N: usize>(&self, x: &Node, weights: [&Parameter; N]) -> [Node; N] {
        let value = x.value();
        let (kind, size) = (value.kind(), value.size());
        let saved_x = value.to_kind(self.kind);
        let weight = joined(weights, self.kind); // [features of all, in]
        let y = matmul(&rows(&saved_x), &weight.tr()).view([size[0], size[1], -1]);
        let widths = weights.map(|weight| weight.value().size()[0]);
        // The weights' places follow that of `x`, in a list of variable length.
        let inputs: Vec<Option<Place>> =
            [x.place].into_iter().chain(weights.map(|weight| self.place(weight))).collect();
        let places = self.tape.step_with_outputs(inputs, move |dys: [Option<Gradient>; N], wanted| {
            let dys = dys.map(|dy| dy.map(|dy| dy.value));
            let dy = whole_gradient(dys, &size, &widths, saved_x.kind(), saved_x.device());
            let dy = rows(&dy);
            let dx = wanted[0].then(|| matmul(&dy, &weight).view(size.as_slice()).to_kind(kind));
            let dweights = wanted[1..].contains(&true).then(|| product_in_f32(&dy.tr(), &rows(&saved_x)));
            let dweights = dweights.map(|all| all.split_with_sizes(widths.as_slice(), 0));
            let dweights = dweights.into_iter().flatten().zip(&wanted[1..]);
            let mut gradients = vec![dx.map(Gradient::from)];
            gradients.extend(dweights.map(|(dweight, wanted)| wanted.then_some(dweight.into())));
            gradients
        });
        let mut first = 0;
        std::array::from_fn(|i| {
            let value = if N == 1 { y.shallow_clone() } else { y.narrow(2, first, widths[i]) };
            first += widths[i];
            Node::new(value, places[i])
        })
    }

    fn rms_norm(&self, x: &Node, gain: &Parameter, groups: &[usize], epsilon: f32) -> Node {
        norm::rms_norm(self, x, gain, groups, epsilon)
    }

    fn position_bias(&self, table: &Parameter, buckets: &Buckets) -> Bias {
        Bias::new(table.value(), self.place(table), buckets)
    }

    fn attention(&self, q: &Node, k: &Node, v: &Node, how: Attention<'_, Bias>) -> Node {
        self.flash(q, k, v, &how).unwrap_or_else(|| self.stored_attention(q, k, v, how))
    }

    fn gated_gelu(&self, gate: &Node, value: &Node) -> Node {
        let (saved_gate, saved_value) = (gate.value().to_kind(self.kind), value.value().to_kind(self.kind));
        let inputs = [gate.input(), value.input()];
        if let Some(kernels) =
            self.kernels.clone().filter(|kernels| kernels.can_gate(&saved_gate, &saved_value))
        {
            let y = kernels.gated_gelu(&saved_gate, &saved_value);
            return self.node(y, inputs, move |dy, _| {
                kernels.gated_gelu_gradients(&dy.contiguous(), &saved_gate, &saved_value).map(Some)
            });
        }
        let activated = saved_gate.gelu("tanh");
        let y = &activated * &saved_value;
        self.node(y, inputs, move |dy, _| {
            let dvalue = &dy * activated;
            let dgate = saved_gate.gelu_backward(&(dy * saved_value), "tanh");
            [Some(dgate), Some(dvalue)]
        })
    }

    fn relu(&self, x: &Node) -> Node {
        let y = x.value().relu();
        let saved_y = y.shallow_clone();
        self.node(y, [x.input()], move |dy, _| [Some(saved_y.threshold_backward(&dy, 0))])
    }

    fn add(&self, x: &Node, y: &Node) -> Node {
        let kinds = [x.kind(), y.kind()];
        let place = self.tape.step([x.place, y.place], move |dy: Gradient, _| {
            // Where a kernel wrote both types, each input gets its own.
            kinds.map(|kind| Some(dy.in_kind(kind)))
        });
        let (x, y) = (x.value(), y.value());
        let later = self.kernels.is_some()
            && kinds == [Kind::Float, self.kind]
            && x.size() == y.size()
            && x.is_contiguous()
            && y.is_contiguous();
        match later {
            true => Node::later(x, y, place),
            false => Node::new(x + y, place),
        }
    }

    fn scale(&self, x: &Node, factor: f32) -> Node {
        let scaled = x.value() * f64::from(factor);
        self.node(scaled, [x.input()], move |dy, _| [Some(dy * f64::from(factor))])
    }

    fn dropout(&self, x: &Node, draw: DropoutDraw) -> Node {
        if let Some(kernels) = self.kernels.clone() {
            let dropped = kernels.dropout(&x.value().contiguous(), &draw);
            return self
                .node(dropped, [x.input()], move |dy, _| [Some(kernels.dropout(&dy.contiguous(), &draw))]);
        }
        let value = x.value();
        let factors = self.factors(&draw, &value.size()).to_kind(value.kind());
        let dropped = value * &factors;
        self.node(dropped, [x.input()], move |dy, _| [Some(dy * factors)])
    }

    fn append(&self, x: &Node, y: &Node) -> Node {
        Node::new(Tensor::cat(&[x.value(), y.value()], 1), None)
    }

    fn gather(&self, x: &Node, Positions { ids, batch, length }: &Positions) -> Node {
        let y = rows(&x.value()).index_select(0, &self.integers(ids));
        Node::new(y.view([*batch as i64, *length as i64, -1]), None)
    }

    fn cross_entropy(
        &self,
        x: &Node,
        head: &Parameter,
        labels: &[i32],
        how: CrossEntropy,
    ) -> (Loss, Pending<Vec<TokenLoss>>) {
        let tracked = self.tape.is_recording();
        let value = x.value();
        let (losses, [dx, dhead]) = match self.kernels.clone() {
            Some(kernels) => {
                let x_rows = rows(&value.to_kind(self.kind)).contiguous();
                let operand = head.operand(self.kind);
                // Logits take as much of the device's memory as the activations of a few layers.
                let row = operand.size()[0] * self.kind.elt_size_in_bytes() as i64;
                let at_once = (kernels.memory() / memory::LOGITS / row).max(1);
                let (results, [dx, dhead]) =
                    kernels.cross_entropy(&x_rows, &operand, labels, how, tracked, at_once);
                let dx = if tracked { dx.view_as(&value).to_kind(value.kind()) } else { dx };
                (Pending::new(move || token_losses(&results)), [dx, dhead])
            }
            None => {
                let (losses, gradients) = cross_entropy(self, &value, head, labels, how, tracked);
                (losses.into(), gradients)
            }
        };
        // These are already gradients of the scaled loss.
        let place = self.tape.step([x.place, self.place(head)], |_, _| [Some(dx.into()), Some(dhead.into())]);
        (Loss { place, gradient: Tensor::from(1f32) }, losses)
    }

    fn leaf(&self, x: &Node) -> Node {
        Node::new(x.value(), Some(self.tape.place()))
    }

    fn product(&self, y: &Node, dy: &Node) -> Loss {
        Loss { place: y.place, gradient: dy.value().to_kind(y.kind()) }
    }

    fn backward(
        &self,
        Loss { place, gradient }: Loss,
        leaves: &[&Node],
        parameters: &[&Parameter],
    ) -> (Vec<Node>, Vec<Tensor>) {
        let add = |a: Gradient, b: Gradient| (a.value + b.value).into();
        let mut gradients = match place {
            Some(place) => self.tape.backward(place, gradient.into(), add),
            None => Default::default(),
        };
        let mut take = |place: Option<Place>, value: &Tensor| {
            let gradient = place.and_then(|place| gradients.remove(&place));
            gradient.map_or_else(|| value.zeros_like(), |gradient| gradient.value.contiguous())
        };
        let leaf = |leaf: &&Node| Node::new(take(leaf.place, &leaf.value()), None);
        let leaves = leaves.iter().map(leaf).collect();
        let gradient = |parameter: &&Parameter| take(Some(parameter.place), &parameter.value());
        (leaves, parameters.iter().map(gradient).collect())
    }

    fn backward_in_turn(
        &self,
        Loss { place, gradient }: Loss,
        parameters: &[&Parameter],
        ready: &mut dyn FnMut(usize, Tensor),
    ) {
        let places = parameters.iter().enumerate().map(|(index, parameter)| (parameter.place, index));
        let mut places: HashMap<Place, usize> = places.collect();
        let add = |a: Gradient, b: Gradient| (a.value + b.value).into();
        if let Some(place) = place {
            self.tape.backward_in_turn(place, gradient.into(), add, |place, gradient| {
                if let Some(index) = places.remove(&place) {
                    ready(index, gradient.value.contiguous());
                }
            });
        }
        let mut others: Vec<usize> = places.into_values().collect();
        others.sort_unstable();
        others.into_iter().for_each(|index| ready(index, parameters[index].value().zeros_like()));
    }

    fn accumulate(&self, total: &mut Tensor, gradient: Tensor) {
        let _ = total.g_add_(&gradient);
    }

    fn squared_norm(&self, gradients: &[Tensor]) -> f64 {
        let on_host: Option<Vec<&[f32]>> = gradients.iter().map(elements).collect();
        match on_host {
            Some(gradients) => gradients.into_iter().map(sum_of_squares).sum(),
            None => {
                // All transfers are started before the host waits for them.
                let sums: Vec<Tensor> =
                    gradients.iter().map(|gradient| gradient.square().sum(Kind::Double)).collect();
                Tensor::stack(&sums, 0).sum(Kind::Double).double_value(&[])
            }
        }
    }

    fn is_asynchronous(&self) -> bool {
        !self.works_on_host()
    }

    fn moment(&self, tensor: HostTensor) -> Moment {
        match self.works_on_host() {
            true => Moment::Host(tensor),
            false => Moment::Device(upload(&tensor.data, &sizes(&tensor.shape), self.device)),
        }
    }

    fn read_moment(&self, moment: &Moment) -> HostTensor {
        match moment {
            Moment::Host(tensor) => tensor.clone(),
            Moment::Device(tensor) => host(tensor),
        }
    }

    fn update_all(
        &self,
        trained: Vec<Trained<'_, Self>>,
        gradients: Vec<Tensor>,
        update: &Update,
    ) -> Pending<f64> {
        let Some((kernels, rule)) = self.kernels.as_ref().zip(at_once(update)) else {
            return update_each(self, trained, gradients, update).into();
        };
        let zeros = |shape: &[usize]| Moment::Device(Tensor::zeros(sizes(shape), (Kind::Float, self.device)));
        let mut all = vec![];
        for (Trained { parameter, moments, role }, gradient) in trained.into_iter().zip(&gradients) {
            let shape: Vec<usize> = gradient.size().iter().map(|size| *size as usize).collect();
            let averages = match update.of_parameter(0.0, role).rule(&shape) {
                UpdateRule::Adafactor(step) if step.factored => {
                    let (rows, columns) = moments.rows_and_columns(&shape, zeros);
                    let [rows, columns] = [rows, columns].map(|moment| &*moment.on_device(self.device));
                    Averages::Factored { rows, columns }
                }
                UpdateRule::Adafactor(_) => {
                    Averages::Squares(moments.squares(&shape, zeros).on_device(self.device))
                }
                UpdateRule::Adamw(_) | UpdateRule::Muon(_) => {
                    let (mean, squares) = moments.mean_and_squares(&shape, zeros);
                    let [mean, squares] = [mean, squares].map(|moment| &*moment.on_device(self.device));
                    Averages::Adamw { mean, squares, decays: role != Role::Gain }
                }
            };
            let (weights, low) = parameter.both();
            all.push(Updated { weights, low: low.map(|low| &*low), gradient, averages });
        }
        let healthy = self.healthy.get_or_init(|| Tensor::ones([1], (Kind::Double, self.device)));
        // The norm, and with it clipping, is computed on the device.
        kernels.update(&all, rule, update.clip_norm, healthy)
    }

    fn update(
        &self,
        parameter: &mut Parameter,
        gradient: Tensor,
        moments: &mut Moments<Moment>,
        update: &ParameterUpdate,
    ) {
        let (value, _) = parameter.both();
        let shape: Vec<usize> = value.size().into_iter().map(|size| size as usize).collect();
        if let Some((weights, gradient)) = elements_mut(value).zip(elements(&gradient)) {
            let mut on_host = std::mem::take(moments).map(Moment::into_host);
            update.apply(&shape, weights, gradient, &mut on_host);
            *moments = on_host.map(Moment::Host);
        } else {
            let mut on_device = std::mem::take(moments).map(|moment| moment.into_device(self.device));
            update_on_device(value, gradient, &mut on_device, update, &shape);
            *moments = on_device.map(Moment::Device);
        }
        parameter.round();
    }
}

/// The rule of an update that kernels apply to all parameters at once. Muon's products are libtorch's.
fn at_once(update: &Update) -> Option<Rule> {
    match update.of_parameter(0.0, Role::Matrix).rule(&[]) {
        UpdateRule::Adamw(step) => Some(Rule::Adamw(step)),
        UpdateRule::Adafactor(step) => Some(Rule::Adafactor(step)),
        UpdateRule::Muon(_) => None,
    }
}

/// The gradient of all features from those of their parts, which are adjacent in memory if our own kernels
/// wrote them.
fn whole_gradient(
    parts: impl IntoIterator<Item = Option<Tensor>>,
    size: &[i64],
    widths: &[i64],
    kind: Kind,
    device: Device,
) -> Tensor {
    let zeros = |width: i64| Tensor::zeros([size[0], size[1], width], (kind, device));
    let parts = parts.into_iter().zip(widths);
    let parts: Vec<Tensor> = parts.map(|(part, width)| part.unwrap_or_else(|| zeros(*width))).collect();
    match parts.as_slice() {
        [one] => one.contiguous(),
        parts => beside(parts, 2).unwrap_or_else(|| Tensor::cat(parts, 2)),
    }
}
