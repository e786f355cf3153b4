//! T5's operations in libtorch's, and in kernels of our own on a GPU. The residual stream and all norms are f32; between them
//! activations have the type that is computed in.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use fusion_core::HostTensor;
use t5_model::kernels::norm;
use t5_model::optimizer::{Moments, ParameterUpdate, UpdateRule, sum_of_squares};
use t5_model::{
    Attention, Buckets, CrossEntropy, DropoutDraw, LossSums, Ops, Pending, Place, Positions, Precision, Tape,
    TokenIds, Trained, Update, update_each,
};
use tch::{Device, Kind, Tensor};

use crate::attention::{Heads, Scores, attention};
use crate::bias::Bias;
use crate::cross_entropy::cross_entropy;
use crate::cuda::{Kernels, Updated};
use crate::memory;
use crate::norm::{rms_norm, rms_norm_gradients};
use crate::parameter::{Parameter, joined};
use crate::tensor::{beside, elements, elements_mut, host, integers, matmul, product_in_f32, sizes, upload};
use crate::update::{Moment, update_on_device};

/// The operations on a device, and what they recorded.
pub struct TchOps {
    pub device: Device,
    /// What products are computed in.
    pub kind: Kind,
    tape: Tape<Gradient>,
    /// Of our own, on GPUs that can run them.
    kernels: Option<Rc<Kernels>>,
    /// The padding mask that attention saw last: that of all blocks is the same.
    mask: RefCell<Option<(Vec<u8>, Tensor)>>,
    /// Whether all gradients' norms were finite, for updates on the device; an f64.
    healthy: OnceCell<Tensor>,
}

/// An activation or a bias.
#[derive(Clone)]
pub struct Node {
    value: Rc<RefCell<Value>>,
    place: Option<Place>,
}

enum Value {
    Known(Tensor),
    /// f32 and the type of products. A norm adds them on its way.
    Sum(Tensor, Tensor),
}

/// A gradient on its way back.
pub struct Gradient {
    value: Tensor,
    /// The same in bf16, where a kernel wrote both.
    low: Option<Tensor>,
}

impl Gradient {
    fn in_kind(&self, kind: Kind) -> Gradient {
        match &self.low {
            Some(low) if low.kind() == kind => low.shallow_clone().into(),
            _ => self.value.to_kind(kind).into(),
        }
    }

    /// With both types where the input is f32, else in that of the input.
    fn or_in(self, kind: Kind) -> Gradient {
        if kind == Kind::Float { self } else { self.in_kind(kind) }
    }
}

impl From<Tensor> for Gradient {
    fn from(value: Tensor) -> Self {
        Gradient { value, low: None }
    }
}

/// Where to begin on the way back, and with which gradient.
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

    fn place(&self, parameter: &Parameter) -> Option<Place> {
        self.tape.is_recording().then_some(parameter.place)
    }

    /// The result of an operation. Gradients come back in the types of its inputs.
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

    fn factors(&self, draw: &DropoutDraw, shape: &[i64]) -> Tensor {
        match &self.kernels {
            Some(kernels) => kernels.dropout_factors(shape, draw),
            None => {
                let factors = draw.first_factors(shape.iter().product::<i64>() as usize);
                upload(&factors, shape, self.device)
            }
        }
    }
}

impl Node {
    fn new(value: Tensor, place: Option<Place>) -> Self {
        Node { value: Rc::new(RefCell::new(Value::Known(value))), place }
    }

    pub fn value(&self) -> Tensor {
        let mut value = self.value.borrow_mut();
        let sum = match &*value {
            Value::Known(tensor) => return tensor.shallow_clone(),
            Value::Sum(x, y) => x + y,
        };
        *value = Value::Known(sum.shallow_clone());
        sum
    }

    fn kind(&self) -> Kind {
        match &*self.value.borrow() {
            Value::Known(tensor) => tensor.kind(),
            Value::Sum(..) => Kind::Float,
        }
    }

    /// What is still to be added.
    fn sum(&self) -> Option<(Tensor, Tensor)> {
        match &*self.value.borrow() {
            Value::Known(_) => None,
            Value::Sum(x, y) => Some((x.shallow_clone(), y.shallow_clone())),
        }
    }

    pub fn input(&self) -> (Option<Place>, Kind) {
        (self.place, self.kind())
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

    fn read_activation(&self, activation: &Node) -> HostTensor {
        host(&activation.value())
    }

    fn read_gradient(&self, gradient: &Tensor) -> HostTensor {
        host(gradient)
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
            // libtorch's sums are not the same in every run.
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
        // The places of the weights follow that of `x`, in a list of as many as there are.
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
        let (kind, groups, saved_gain) = (x.kind(), sizes(groups), gain.value());
        if let Some(kernels) = self.kernels.clone().filter(|kernels| kernels.can_norm(&groups)) {
            let sum = x.sum();
            let (known, more) = match &sum {
                Some((x, y)) => (x.shallow_clone(), Some(y)),
                None => (x.value().to_kind(Kind::Float).contiguous(), None),
            };
            let (sum, value, normed) =
                kernels.rms_norm(&known, more, &saved_gain, &groups, epsilon, self.kind);
            if let Some(sum) = &sum {
                *x.value.borrow_mut() = Value::Known(sum.shallow_clone());
            }
            let saved_x = sum.unwrap_or(known);
            let place =
                self.tape.adding_step([x.place, self.place(gain)], move |dy, [before, gain_before], _| {
                    // The residual stream's gradient is added on the way.
                    let before = before.map(|before| before.value.to_kind(Kind::Float).contiguous());
                    let dy = dy.value.contiguous();
                    let ([dx, dgain], low) =
                        kernels.rms_norm_gradients(&dy, &saved_x, &saved_gain, &normed, before.as_ref());
                    let dgain = match gain_before {
                        Some(before) => dgain + before.value,
                        None => dgain,
                    };
                    [Some(Gradient { value: dx, low }.or_in(kind)), Some(dgain.into())]
                });
            return Node::new(value, place);
        }
        let saved_x = x.value().to_kind(Kind::Float).contiguous();
        if let (Some(x_here), Some(gain_here)) = (elements(&saved_x), elements(&saved_gain)) {
            let groups: Vec<usize> = groups.iter().map(|size| *size as usize).collect();
            let size = saved_x.size();
            let y = upload(&norm::rms_norm(x_here, gain_here, &groups, epsilon), &size, self.device);
            let inputs = [x.input(), (self.place(gain), Kind::Float)];
            return self.node(y.to_kind(self.kind), inputs, move |dy, _| {
                let dy = dy.to_kind(Kind::Float).contiguous();
                let here = |x| elements(x).expect("it lies in the host's memory, in f32");
                let [x, gain, dy] = [&saved_x, &saved_gain, &dy].map(here);
                let (dx, dgain) = norm::rms_norm_gradient(x, gain, &groups, epsilon, dy);
                let sizes = [size.clone(), vec![gain.len() as i64]];
                [Some(upload(&dx, &sizes[0], Device::Cpu)), Some(upload(&dgain, &sizes[1], Device::Cpu))]
            });
        }
        let (y, scales) = rms_norm(&saved_x, &saved_gain, &groups, epsilon);
        let inputs = [x.input(), (self.place(gain), Kind::Float)];
        self.node(y.to_kind(self.kind), inputs, move |dy, _| {
            rms_norm_gradients(&dy.to_kind(Kind::Float), &saved_x, &saved_gain, &groups, &scales).map(Some)
        })
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
            // Where a kernel wrote both types, each input has the one of its own.
            kinds.map(|kind| Some(dy.in_kind(kind)))
        });
        let (x, y) = (x.value(), y.value());
        let later = self.kernels.is_some()
            && kinds == [Kind::Float, self.kind]
            && x.size() == y.size()
            && x.is_contiguous()
            && y.is_contiguous();
        match later {
            true => Node { value: Rc::new(RefCell::new(Value::Sum(x, y))), place },
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
    ) -> (Loss, Pending<LossSums>) {
        let tracked = self.tape.is_recording();
        let value = x.value();
        let (sums, [dx, dhead]) = match self.kernels.clone() {
            Some(kernels) => {
                let x_rows = rows(&value.to_kind(self.kind)).contiguous();
                let operand = head.operand(self.kind);
                // Logits take as much of the device's memory as a few layers' activations.
                let row = operand.size()[0] * self.kind.elt_size_in_bytes() as i64;
                let at_once = (kernels.memory() / memory::LOGITS / row).max(1);
                let (sums, [dx, dhead]) =
                    kernels.cross_entropy(&x_rows, &operand, labels, how, tracked, at_once);
                let tokens = labels.iter().filter(|label| **label >= 0).count() as u64;
                let read = move || {
                    let sums = Vec::<f64>::try_from(&sums.to_device(Device::Cpu)).unwrap_or_default();
                    let [loss, correct] = sums.try_into().unwrap_or([f64::NAN, 0.0]);
                    LossSums { loss, correct: correct as u64, tokens }
                };
                let dx = if tracked { dx.view_as(&value).to_kind(value.kind()) } else { dx };
                (Pending::new(read), [dx, dhead])
            }
            None => {
                let (sums, gradients) = cross_entropy(self, &value, head, labels, how, tracked);
                (sums.into(), gradients)
            }
        };
        // They are those of the scaled loss already.
        let place = self.tape.step([x.place, self.place(head)], |_, _| [Some(dx.into()), Some(dhead.into())]);
        (Loss { place, gradient: Tensor::from(1f32) }, sums)
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

    fn accumulate(&self, total: &mut Tensor, gradient: Tensor) {
        let _ = total.g_add_(&gradient);
    }

    fn squared_norm(&self, gradients: &[Tensor]) -> f64 {
        let on_host: Option<Vec<&[f32]>> = gradients.iter().map(elements).collect();
        match on_host {
            Some(gradients) => gradients.into_iter().map(sum_of_squares).sum(),
            None => {
                // All sums are on their way before the host waits for them.
                let sums: Vec<Tensor> =
                    gradients.iter().map(|gradient| gradient.square().sum(Kind::Double)).collect();
                Tensor::stack(&sums, 0).sum(Kind::Double).double_value(&[])
            }
        }
    }

    fn is_asynchronous(&self) -> bool {
        self.device != Device::Cpu
    }

    fn moment(&self, tensor: HostTensor) -> Moment {
        match self.device {
            Device::Cpu => Moment::Host(tensor),
            device => Moment::Device(upload(&tensor.data, &sizes(&tensor.shape), device)),
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
        // The norm, and with it clipping, is found on the device.
        let UpdateRule::Adamw(step) = update.of_parameter(0.0, true).rule(&[]) else {
            return update_each(self, trained, gradients, update).into();
        };
        let Some(kernels) = &self.kernels else {
            return update_each(self, trained, gradients, update).into();
        };
        let mut all = vec![];
        for (Trained { parameter, moments, decay }, gradient) in trained.into_iter().zip(&gradients) {
            let size = gradient.size();
            let shape: Vec<usize> = size.iter().map(|size| *size as usize).collect();
            let zeros =
                |shape: &[usize]| Moment::Device(Tensor::zeros(sizes(shape), (Kind::Float, self.device)));
            let (mean, squares) = moments.mean_and_squares(&shape, zeros);
            let [mean, squares] = [mean, squares].map(|moment| &*moment.on_device(self.device));
            let (weights, low) = parameter.both();
            all.push(Updated { weights, low: low.map(|low| &*low), gradient, mean, squares, decays: decay });
        }
        let healthy = self.healthy.get_or_init(|| Tensor::ones([1], (Kind::Double, self.device)));
        kernels.adamw(&all, &step, update.clip_norm, healthy)
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

impl TchOps {
    /// Attention by kernels of our own, where they can.
    fn flash(&self, q: &Node, k: &Node, v: &Node, how: &Attention<'_, Bias>) -> Option<Node> {
        let kernels = self.kernels.clone()?;
        let heads = how.heads as i64;
        let values = [q, k, v].map(|x| x.value().to_kind(self.kind));
        let fits = {
            let [q, k, v] = &values;
            kernels.can_attend(heads, q, k, v, how.bias.is_some())
        };
        if !fits || how.dropout.is_some() {
            return None;
        }
        let relative = match how.bias {
            None => None,
            Some(bias) => Some(bias.of_distances(self)?),
        };
        let visible = how.key_mask.map(|mask| self.padding(mask));
        let bias_value = relative.map(Node::value);
        let flash = kernels.attend(heads, how.causal, values, bias_value, visible);
        let value = flash.output().shallow_clone();
        let no_bias = (None, Kind::Float);
        let inputs = [q.input(), k.input(), v.input(), relative.map_or(no_bias, Node::input)];
        Some(self.node(value, inputs, move |dy, _| {
            let ([dq, dk, dv], dbias) = kernels.attention_gradients(&flash, &dy.contiguous());
            [Some(dq), Some(dk), Some(dv), dbias]
        }))
    }

    /// Attention in libtorch's operations, which stores its probabilities.
    fn stored_attention(&self, q: &Node, k: &Node, v: &Node, how: Attention<'_, Bias>) -> Node {
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

/// The gradient of all features from those of their parts, which lie side by side if kernels of our own wrote them.
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
