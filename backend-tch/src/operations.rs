//! T5's operations in libtorch's. The residual stream and all norms are f32; between them activations have the type that is
//! computed in.

use fusion_core::HostTensor;
use t5_model::optimizer::{Moments, ParameterUpdate, sum_of_squares};
use t5_model::{
    Attention, Buckets, CrossEntropy, DropoutDraw, LossSums, Ops, Place, Positions, Precision, Tape, TokenIds,
};
use tch::{Device, Kind, Tensor};

use crate::attention::{Heads, Scores, attention};
use crate::cross_entropy::cross_entropy;
use crate::tensor::{elements, elements_mut, host, integers, matmul, sizes, upload};
use crate::update::{Moment, update_on_device};

/// The operations on a device, and what they recorded.
pub struct TchOps {
    pub device: Device,
    /// What products are computed in.
    pub kind: Kind,
    tape: Tape<Tensor>,
}

/// An activation or a bias.
pub struct Node {
    pub value: Tensor,
    place: Option<Place>,
}

impl Clone for Node {
    fn clone(&self) -> Self {
        Node { value: self.value.shallow_clone(), place: self.place }
    }
}

/// A trainable tensor, in f32.
pub struct Parameter {
    value: Tensor,
    place: Place,
}

/// Where to begin on the way back, and with which gradient.
pub struct Loss {
    place: Option<Place>,
    gradient: Tensor,
}

impl TchOps {
    pub fn new(device: Device, precision: Precision) -> Self {
        let kind = match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        TchOps { device, kind, tape: Tape::default() }
    }

    fn place(&self, parameter: &Parameter) -> Option<Place> {
        self.tape.is_recording().then_some(parameter.place)
    }

    /// The result of an operation. Gradients come back in the types of its inputs.
    fn node<const N: usize>(
        &self,
        value: Tensor,
        inputs: [(Option<Place>, Kind); N],
        backward: impl FnOnce(Tensor, [bool; N]) -> [Option<Tensor>; N] + 'static,
    ) -> Node {
        let kinds = inputs.map(|(_, kind)| kind);
        let place = self.tape.step(inputs.map(|(place, _)| place), move |gradient, wanted| {
            let mut kinds = kinds.into_iter();
            backward(gradient, wanted).map(|gradient| {
                let kind = kinds.next().unwrap_or(Kind::Float);
                gradient.map(|gradient| gradient.to_kind(kind))
            })
        });
        Node { value, place }
    }

    fn factors(&self, draw: DropoutDraw, shape: &[i64]) -> Tensor {
        let factors = draw.first_factors(shape.iter().product::<i64>() as usize);
        upload(&factors, shape, self.device)
    }
}

impl Node {
    pub fn input(&self) -> (Option<Place>, Kind) {
        (self.place, self.value.kind())
    }
}

/// `[batch · length, features]`.
pub fn rows(x: &Tensor) -> Tensor {
    x.reshape([-1, x.size().last().copied().unwrap_or(1)])
}

impl Ops for TchOps {
    type Parameter = Parameter;
    type Activation = Node;
    type Bias = Node;
    type Loss = Loss;
    type Gradient = Tensor;
    type Moment = Moment;

    fn parameter(&self, HostTensor { shape, data }: HostTensor) -> Parameter {
        Parameter { value: upload(&data, &sizes(&shape), self.device), place: self.tape.place() }
    }

    fn read_parameter(&self, parameter: &Parameter) -> HostTensor {
        host(&parameter.value)
    }

    fn read_activation(&self, activation: &Node) -> HostTensor {
        host(&activation.value)
    }

    fn read_gradient(&self, gradient: &Tensor) -> HostTensor {
        host(gradient)
    }

    fn record(&mut self, on: bool) {
        self.tape.record(on);
    }

    fn embedding(&self, table: &Parameter, TokenIds { ids, batch, length }: TokenIds<'_>) -> Node {
        let ids = integers(ids.iter().map(|id| i64::from(*id)), self.device);
        let size = table.value.size();
        let (rows, features) = (size[0], size[1]);
        let y = table.value.index_select(0, &ids).view([batch as i64, length as i64, features]);
        self.node(y, [(self.place(table), Kind::Float)], move |dy, _| {
            let dy = dy.to_kind(Kind::Float).view([-1, features]);
            [Some(Tensor::embedding_dense_backward(&dy, &ids, rows, -1, false))]
        })
    }

    fn linear(&self, x: &Node, weight: &Parameter) -> Node {
        let saved_x = x.value.to_kind(self.kind);
        let saved_weight = weight.value.to_kind(self.kind);
        let size = x.value.size();
        let y = matmul(&rows(&saved_x), &saved_weight.tr()).view([size[0], size[1], -1]);
        let inputs = [x.input(), (self.place(weight), Kind::Float)];
        self.node(y, inputs, move |dy, [want_x, want_weight]| {
            let dy = dy.contiguous();
            let dx = want_x.then(|| matmul(&rows(&dy), &saved_weight).view(size.as_slice()));
            let dweight = want_weight.then(|| matmul(&rows(&dy).tr(), &rows(&saved_x)));
            [dx, dweight]
        })
    }

    fn rms_norm(&self, x: &Node, gain: &Parameter, groups: &[usize], epsilon: f32) -> Node {
        let saved_x = x.value.to_kind(Kind::Float);
        let saved_gain = gain.value.shallow_clone();
        let groups = sizes(groups);
        let inverse_rms = |x: &Tensor| {
            let features = x.size()[2] as f64;
            let squares = x.norm_scalaropt_dim(2, [-1].as_slice(), true).square(); // [batch, length, 1]
            (squares / features + f64::from(epsilon)).rsqrt()
        };
        let scales: Vec<Tensor> = split(&saved_x, &groups).iter().map(inverse_rms).collect();
        let parts = split(&saved_x, &groups).into_iter().zip(&scales).map(|(x, scale)| x * scale);
        let y = (join(parts) * &saved_gain).to_kind(self.kind);
        self.node(y, [x.input(), (self.place(gain), Kind::Float)], move |dy, _| {
            let dy = dy.to_kind(Kind::Float);
            let scaled = &dy * &saved_gain;
            let (mut dx, mut normed) = (vec![], vec![]);
            for ((x, dy), scale) in
                split(&saved_x, &groups).into_iter().zip(split(&scaled, &groups)).zip(&scales)
            {
                let x = x * scale;
                let projection = (&x * &dy).mean_dim(-1, true, Kind::Float); // [batch, length, 1]
                dx.push((dy - &x * projection) * scale);
                normed.push(x);
            }
            let dgain =
                (dy * join(normed.into_iter())).sum_dim_intlist([0, 1].as_slice(), false, Kind::Float);
            [Some(join(dx.into_iter())), Some(dgain)]
        })
    }

    fn position_bias(&self, table: &Parameter, buckets: &Buckets) -> Node {
        let size = table.value.size();
        let (rows, heads) = (size[0], size[1]);
        let ids = integers(buckets.ids.iter().map(|id| i64::from(*id)), self.device);
        let selected = table.value.index_select(0, &ids); // [query · key, heads]
        let bias = selected.tr().contiguous().view([heads, buckets.query as i64, buckets.key as i64]);
        self.node(bias, [(self.place(table), Kind::Float)], move |dbias, _| {
            let dbias = dbias.view([heads, -1]).tr().contiguous(); // [query · key, heads]
            [Some(Tensor::embedding_dense_backward(&dbias, &ids, rows, -1, false))]
        })
    }

    fn attention(&self, q: &Node, k: &Node, v: &Node, how: Attention<'_, Node>) -> Node {
        let heads = Heads { heads: how.heads as i64, kind: self.kind };
        let [split_q, split_k, split_v] = [q, k, v].map(|x| heads.split(&x.value)); // [batch · heads, length, d_kv]
        let (query, key) = (split_q.size()[1], split_k.size()[1]);
        let batch = q.value.size()[0];
        let hidden = self.hidden(how.causal, how.key_mask, [batch, query, key]);
        let factors = how.dropout.map(|draw| self.factors(draw, &[batch * heads.heads, query, key]));
        let bias = how.bias.map(|bias| bias.value.shallow_clone());
        let scores = Scores { heads, bias, hidden, factors };
        let saved = attention(&scores, split_q, split_k, split_v);
        let y = heads.join(&saved.output, batch);
        let no_bias = (None, Kind::Float);
        let inputs = [q.input(), k.input(), v.input(), how.bias.map_or(no_bias, Node::input)];
        self.node(y, inputs, move |dy, [.., want_bias]| {
            let [dq, dk, dv, dscores] = saved.backward(&scores, &heads.split(&dy));
            let dbias = want_bias.then(|| scores.bias_gradient(&dscores, batch));
            [Some(heads.join(&dq, batch)), Some(heads.join(&dk, batch)), Some(heads.join(&dv, batch)), dbias]
        })
    }

    fn gated_gelu(&self, gate: &Node, value: &Node) -> Node {
        let (saved_gate, saved_value) = (gate.value.to_kind(self.kind), value.value.to_kind(self.kind));
        let activated = saved_gate.gelu("tanh");
        let y = &activated * &saved_value;
        self.node(y, [gate.input(), value.input()], move |dy, _| {
            let dvalue = &dy * activated;
            let dgate = saved_gate.gelu_backward(&(dy * saved_value), "tanh");
            [Some(dgate), Some(dvalue)]
        })
    }

    fn relu(&self, x: &Node) -> Node {
        let y = x.value.relu();
        let saved_y = y.shallow_clone();
        self.node(y, [x.input()], move |dy, _| [Some(saved_y.threshold_backward(&dy, 0))])
    }

    fn add(&self, x: &Node, y: &Node) -> Node {
        let sum = &x.value + &y.value;
        self.node(sum, [x.input(), y.input()], |dy, _| [Some(dy.shallow_clone()), Some(dy)])
    }

    fn scale(&self, x: &Node, factor: f32) -> Node {
        let scaled = &x.value * f64::from(factor);
        self.node(scaled, [x.input()], move |dy, _| [Some(dy * f64::from(factor))])
    }

    fn dropout(&self, x: &Node, draw: DropoutDraw) -> Node {
        let factors = self.factors(draw, &x.value.size()).to_kind(x.value.kind());
        let dropped = &x.value * &factors;
        self.node(dropped, [x.input()], move |dy, _| [Some(dy * factors)])
    }

    fn append(&self, x: &Node, y: &Node) -> Node {
        Node { value: Tensor::cat(&[&x.value, &y.value], 1), place: None }
    }

    fn gather(&self, x: &Node, Positions { ids, batch, length }: &Positions) -> Node {
        let ids = integers(ids.iter().map(|id| i64::from(*id)), self.device);
        let y = rows(&x.value).index_select(0, &ids).view([*batch as i64, *length as i64, -1]);
        Node { value: y, place: None }
    }

    fn cross_entropy(
        &self,
        x: &Node,
        head: &Parameter,
        labels: &[i32],
        how: CrossEntropy,
    ) -> (Loss, LossSums) {
        let tracked = self.tape.is_recording();
        let (sums, [dx, dhead]) = cross_entropy(self, &x.value, &head.value, labels, how, tracked);
        // They are those of the scaled loss already.
        let place = self.tape.step([x.place, self.place(head)], |_, _| [Some(dx), Some(dhead)]);
        (Loss { place, gradient: Tensor::from(1f32) }, sums)
    }

    fn leaf(&self, x: &Node) -> Node {
        Node { value: x.value.shallow_clone(), place: Some(self.tape.place()) }
    }

    fn product(&self, y: &Node, dy: &Node) -> Loss {
        Loss { place: y.place, gradient: dy.value.to_kind(y.value.kind()) }
    }

    fn backward(
        &self,
        Loss { place, gradient }: Loss,
        leaves: &[&Node],
        parameters: &[&Parameter],
    ) -> (Vec<Node>, Vec<Tensor>) {
        let add = |a: Tensor, b: Tensor| a + b;
        let mut gradients = match place {
            Some(place) => self.tape.backward(place, gradient, add),
            None => Default::default(),
        };
        let mut take = |place: Option<Place>, value: &Tensor| {
            let gradient = place.and_then(|place| gradients.remove(&place));
            gradient.map_or_else(|| value.zeros_like(), |gradient| gradient.contiguous())
        };
        let leaf = |leaf: &&Node| Node { value: take(leaf.place, &leaf.value), place: None };
        let leaves = leaves.iter().map(leaf).collect();
        (leaves, parameters.iter().map(|parameter| take(Some(parameter.place), &parameter.value)).collect())
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

    fn update(
        &self,
        parameter: &mut Parameter,
        gradient: Tensor,
        moments: &mut Moments<Moment>,
        update: &ParameterUpdate,
    ) {
        let shape: Vec<usize> = parameter.value.size().into_iter().map(|size| size as usize).collect();
        let weights = elements_mut(&mut parameter.value).zip(elements(&gradient));
        if let Some((weights, gradient)) = weights {
            let mut on_host = std::mem::take(moments).map(Moment::into_host);
            update.apply(&shape, weights, gradient, &mut on_host);
            *moments = on_host.map(Moment::Host);
        } else {
            let mut on_device = std::mem::take(moments).map(|moment| moment.into_device(self.device));
            update_on_device(&mut parameter.value, gradient, &mut on_device, update, &shape);
            *moments = on_device.map(Moment::Device);
        }
    }
}

impl TchOps {
    /// True where a query does not see a key, broadcast to `[batch, heads, query, key]`.
    fn hidden(&self, causal: bool, key_mask: Option<&[u8]>, [batch, query, key]: [i64; 3]) -> Option<Tensor> {
        let causal = causal.then(|| {
            let all = Tensor::ones([1, 1, query, key], (Kind::Bool, self.device));
            all.triu(key - query + 1)
        });
        let padding = key_mask.map(|mask| {
            let mask = Tensor::from_slice(mask).view([batch, 1, 1, key]).to_device(self.device);
            mask.eq(0)
        });
        match (causal, padding) {
            (Some(causal), Some(padding)) => Some(causal.logical_or(&padding)),
            (causal, padding) => causal.or(padding),
        }
    }
}

/// The groups of features.
fn split(x: &Tensor, groups: &[i64]) -> Vec<Tensor> {
    match groups {
        [_] => vec![x.shallow_clone()],
        groups => x.split_with_sizes(groups, -1),
    }
}

fn join(mut parts: impl ExactSizeIterator<Item = Tensor>) -> Tensor {
    match (parts.len(), parts.next()) {
        (1, Some(part)) => part,
        (_, first) => Tensor::cat(&first.into_iter().chain(parts).collect::<Vec<_>>(), -1),
    }
}
