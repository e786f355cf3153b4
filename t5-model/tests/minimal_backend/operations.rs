//! T5's operations. Each computes its result and defines how a gradient of the result flows back to its
//! inputs.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use fusion_core::HostTensor;
use t5_model::Ops;
use t5_model::backend::{
    Attention, Buckets, CrossEntropy, DropoutDraw, Pending, Place, Tape, TokenIds, TokenLoss,
};

use super::attention::Heads;
use super::loss;

/// The operations, with what they recorded. Gradients are on the tape without their shapes.
#[derive(Default)]
pub struct MinimalOps {
    tape: Tape<Vec<f32>>,
}

/// A parameter, an activation or a bias.
#[derive(Clone)]
pub struct Node {
    /// Shared with the operations that need it again for their gradients.
    pub value: Rc<HostTensor>,
    /// Where its gradient is accumulated; `None` if it does not depend on any parameter.
    pub place: Option<Place>,
}

impl Node {
    pub fn shape<const N: usize>(&self) -> [usize; N] {
        self.value.shape.as_slice().try_into().expect("a tensor has the number of axes that `Ops` gives it")
    }

    pub fn data(&self) -> &[f32] {
        &self.value.data
    }
}

impl MinimalOps {
    /// The result of an operation.
    fn node<const N: usize>(
        &self,
        shape: impl Into<Vec<usize>>,
        data: Vec<f32>,
        inputs: [Option<Place>; N],
        backward: impl FnOnce(Vec<f32>) -> [Vec<f32>; N] + 'static,
    ) -> Node {
        let place = self.tape.step(inputs, |dy, _| backward(dy).map(Some));
        Node { value: Rc::new(HostTensor { shape: shape.into(), data }), place }
    }
}

impl Ops for MinimalOps {
    type Parameter = Node;
    type Activation = Node;
    type Bias = Node;
    /// Where the backward pass begins, and with which gradient.
    type Loss = (Option<Place>, Vec<f32>);
    type Gradient = HostTensor;
    type Moment = HostTensor;

    fn parameter(&self, tensor: HostTensor) -> Node {
        Node { value: Rc::new(tensor), place: Some(self.tape.place()) }
    }

    fn read_parameter(&self, parameter: &Node) -> HostTensor {
        HostTensor::clone(&parameter.value)
    }

    fn read_activation(&self, activation: &Node) -> HostTensor {
        HostTensor::clone(&activation.value)
    }

    fn gradient(&self, tensor: HostTensor) -> HostTensor {
        tensor
    }

    fn read_gradient(&self, gradient: &HostTensor) -> HostTensor {
        gradient.clone()
    }

    fn record(&mut self, on: bool) {
        self.tape.record(on);
    }

    fn embedding(&self, table: &Node, TokenIds { ids, batch, length }: TokenIds<'_>) -> Node {
        let [rows, features] = table.shape();
        let ids: Vec<usize> = ids.iter().map(|id| *id as usize).collect();
        let y = ids.iter().flat_map(|id| &table.data()[id * features..][..features]).copied().collect();
        self.node([batch, length, features], y, [table.place], move |dy| {
            let mut dtable = vec![0.0; rows * features];
            for (id, dy) in ids.iter().zip(dy.chunks(features)) {
                add_to(&mut dtable[id * features..], dy);
            }
            [dtable]
        })
    }

    fn linear(&self, x: &Node, weight: &Node) -> Node {
        let ([batch, length, inputs], [outputs, _]) = (x.shape(), weight.shape());
        let rows = batch * length;
        let y = product([rows, inputs, outputs], x.data(), &transposed(weight.data(), inputs));
        let (saved_x, saved_weight) = (x.value.clone(), weight.value.clone());
        self.node([batch, length, outputs], y, [x.place, weight.place], move |dy| {
            let dx = product([rows, outputs, inputs], &dy, &saved_weight.data);
            let dweight = product([outputs, rows, inputs], &transposed(&dy, outputs), &saved_x.data);
            [dx, dweight]
        })
    }

    fn rms_norm(&self, x: &Node, gain: &Node, groups: &[usize], epsilon: f32) -> Node {
        let [batch, length, features] = x.shape();
        let ranges = ranges(batch * length, groups);
        let scale = move |x: &[f32]| {
            let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
            1.0 / (squares / x.len() as f64 + f64::from(epsilon)).sqrt()
        };
        let mut y = vec![0.0; x.data().len()];
        for range in ranges.clone() {
            let scale = scale(&x.data()[range.clone()]);
            for at in range {
                y[at] = (f64::from(x.data()[at]) * scale) as f32 * gain.data()[at % features];
            }
        }
        let (x_place, x, gain_place, gain) = (x.place, x.value.clone(), gain.place, gain.value.clone());
        self.node([batch, length, features], y, [x_place, gain_place], move |dy| {
            let (mut dx, mut dgain) = (vec![0.0; dy.len()], vec![0f64; features]);
            for range in ranges {
                let scale = scale(&x.data[range.clone()]);
                // Before the gain: the normalised values and their gradients.
                let normed = |at: usize| f64::from(x.data[at]) * scale;
                let dnormed = |at: usize| f64::from(dy[at]) * f64::from(gain.data[at % features]);
                let along =
                    range.clone().map(|at| normed(at) * dnormed(at)).sum::<f64>() / range.len() as f64;
                for at in range {
                    dx[at] = ((dnormed(at) - normed(at) * along) * scale) as f32;
                    dgain[at % features] += f64::from(dy[at]) * normed(at);
                }
            }
            [dx, dgain.into_iter().map(|sum| sum as f32).collect()]
        })
    }

    fn position_bias(&self, table: &Node, buckets: &Buckets) -> Node {
        let ([rows, heads], pairs) = (table.shape(), buckets.ids.len());
        let ids: Vec<usize> = buckets.ids.iter().map(|id| *id as usize).collect();
        let selected = ids.iter().flat_map(|id| &table.data()[id * heads..][..heads]).copied();
        let selected: Vec<f32> = selected.collect(); // [query · key, heads]
        let shape = [heads, buckets.query, buckets.key];
        self.node(shape, transposed(&selected, heads), [table.place], move |dbias| {
            let mut dtable = vec![0.0; rows * heads];
            for (id, dbias) in ids.iter().zip(transposed(&dbias, pairs).chunks(heads)) {
                add_to(&mut dtable[id * heads..], dbias);
            }
            [dtable]
        })
    }

    fn attention(&self, q: &Node, k: &Node, v: &Node, how: Attention<'_, Node>) -> Node {
        let inputs = [q.place, k.place, v.place, how.bias.and_then(|bias| bias.place)];
        let heads = Heads::new([q, k, v], how);
        self.node(q.shape::<3>(), heads.attention(), inputs, move |dy| heads.gradients(&dy))
    }

    fn gated_gelu(&self, gate: &Node, value: &Node) -> Node {
        let y = zip(gate.data(), value.data(), |gate, value| gelu(gate).0 * value);
        let (saved_gate, saved_value) = (gate.value.clone(), value.value.clone());
        self.node(gate.shape::<3>(), y, [gate.place, value.place], move |dy| {
            let dgelu = zip(&dy, &saved_value.data, |dy, value| dy * value);
            let dgate = zip(&dgelu, &saved_gate.data, |dy, gate| dy * gelu(gate).1);
            let dvalue = zip(&dy, &saved_gate.data, |dy, gate| dy * gelu(gate).0);
            [dgate, dvalue]
        })
    }

    fn relu(&self, x: &Node) -> Node {
        let y = x.data().iter().map(|x| x.max(0.0)).collect();
        let saved = x.value.clone();
        self.node(x.shape::<3>(), y, [x.place], move |dy| {
            [zip(&dy, &saved.data, |dy, x| if x > 0.0 { dy } else { 0.0 })]
        })
    }

    fn add(&self, x: &Node, y: &Node) -> Node {
        let sum = zip(x.data(), y.data(), |x, y| x + y);
        self.node(x.shape::<3>(), sum, [x.place, y.place], |dy| [dy.clone(), dy])
    }

    fn scale(&self, x: &Node, factor: f32) -> Node {
        let scaled = move |x: &[f32]| x.iter().map(|x| x * factor).collect();
        self.node(x.shape::<3>(), scaled(x.data()), [x.place], move |dy| [scaled(&dy)])
    }

    fn dropout(&self, x: &Node, draw: DropoutDraw) -> Node {
        let factors = draw.first_factors(x.data().len());
        let dropped = move |x: &[f32]| zip(x, &factors, |x, factor| x * factor);
        self.node(x.shape::<3>(), dropped(x.data()), [x.place], move |dy| [dropped(&dy)])
    }

    fn append(&self, x: &Node, y: &Node) -> Node {
        let ([batch, first, features], [_, second, _]) = (x.shape(), y.shape());
        let examples = x.data().chunks(first * features).zip(y.data().chunks(second * features));
        let data = examples.flat_map(|(x, y)| [x, y]).flatten().copied().collect();
        Node {
            value: Rc::new(HostTensor { shape: vec![batch, first + second, features], data }),
            place: None,
        }
    }

    fn cross_entropy(
        &self,
        x: &Node,
        head: &Node,
        labels: &[i32],
        how: CrossEntropy,
    ) -> (Self::Loss, Pending<Vec<TokenLoss>>) {
        let [vocabulary, features] = head.shape();
        let rows = labels.len();
        let mut logits = product([rows, features, vocabulary], x.data(), &transposed(head.data(), features));
        let losses = loss::differentiate(&mut logits, vocabulary, labels, how);
        let (saved_x, saved_head) = (x.value.clone(), head.value.clone());
        // The logits' gradients are already those of the scaled loss, whose own gradient is 1.
        let place = self.tape.step([x.place, head.place], move |_, _| {
            let dx = product([rows, vocabulary, features], &logits, &saved_head.data);
            let dhead =
                product([vocabulary, rows, features], &transposed(&logits, vocabulary), &saved_x.data);
            [Some(dx), Some(dhead)]
        });
        ((place, vec![1.0]), losses.into())
    }

    fn leaf(&self, x: &Node) -> Node {
        Node { value: x.value.clone(), place: Some(self.tape.place()) }
    }

    fn product(&self, y: &Node, dy: &Node) -> Self::Loss {
        (y.place, dy.data().to_vec())
    }

    fn backward(
        &self,
        (place, gradient): Self::Loss,
        leaves: &[&Node],
        parameters: &[&Node],
    ) -> (Vec<Node>, Vec<HostTensor>) {
        let add = |mut sum: Vec<f32>, gradient: Vec<f32>| {
            add_to(&mut sum, &gradient);
            sum
        };
        let mut gradients = place.map_or_else(HashMap::new, |place| self.tape.backward(place, gradient, add));
        let mut take = |node: &Node| {
            let shape = node.value.shape.clone();
            match node.place.and_then(|place| gradients.remove(&place)) {
                Some(data) => HostTensor { shape, data },
                None => HostTensor::zeros(shape),
            }
        };
        let leaves = leaves.iter().map(|leaf| Node { value: Rc::new(take(leaf)), place: None }).collect();
        (leaves, parameters.iter().map(|parameter| take(parameter)).collect())
    }

    fn accumulate(&self, total: &mut HostTensor, gradient: HostTensor) {
        add_to(&mut total.data, &gradient.data);
    }

    fn squared_norm(&self, gradients: &[HostTensor]) -> f64 {
        gradients.iter().flat_map(|gradient| &gradient.data).map(|value| f64::from(*value).powi(2)).sum()
    }

    fn moment(&self, tensor: HostTensor) -> HostTensor {
        tensor
    }

    fn read_moment(&self, moment: &HostTensor) -> HostTensor {
        moment.clone()
    }
}

fn zip(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    x.iter().zip(y).map(|(x, y)| f(*x, *y)).collect()
}

/// Adds to the first elements of `total`.
fn add_to(total: &mut [f32], x: &[f32]) {
    total.iter_mut().zip(x).for_each(|(total, x)| *total += x);
}

/// `a` `[rows, inner]` times `b` `[inner, columns]`.
fn product([rows, inner, columns]: [usize; 3], a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut y = Vec::with_capacity(rows * columns);
    for a in a.chunks(inner) {
        let mut row = vec![0f64; columns];
        for (a, b) in a.iter().zip(b.chunks(columns)) {
            row.iter_mut().zip(b).for_each(|(sum, b)| *sum += f64::from(*a) * f64::from(*b));
        }
        y.extend(row.into_iter().map(|sum| sum as f32));
    }
    y
}

/// `[columns, rows]` from `[rows, columns]`.
fn transposed(x: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| x.iter().skip(column).step_by(columns)).copied().collect()
}

/// The ranges of each row's groups of features.
fn ranges(rows: usize, groups: &[usize]) -> Vec<Range<usize>> {
    let mut end = 0;
    let next = |group: &usize| {
        end += group;
        end - group..end
    };
    groups.repeat(rows).iter().map(next).collect()
}

/// The tanh approximation, and its derivative.
fn gelu(x: f32) -> (f32, f32) {
    let (x, slope) = (f64::from(x), (2.0 / std::f64::consts::PI).sqrt());
    let tanh = (slope * (x + 0.044715 * x.powi(3))).tanh();
    let inner = slope * (1.0 + 3.0 * 0.044715 * x.powi(2));
    let derivative = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh.powi(2)) * inner;
    ((0.5 * x * (1.0 + tanh)) as f32, derivative as f32)
}
