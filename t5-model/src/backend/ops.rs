//! What a tensor framework must offer to run T5: T5's own differentiable operations rather than a tensor
//! library's.
//!
//! Activations are `[batch, length, features]` throughout, so ranks stay fixed. Buckets, masks and dropout
//! draws come from the host, so every backend sees the same numbers. Tensors cross this trait as f32,
//! whatever a device computes in.

use fusion_core::HostTensor;
use fusion_core::random::Philox;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{GroupError, ProcessGroup, Reducing};
use crate::Update;
use crate::optimizer::{Moments, ParameterUpdate, Role};

/// Token ids of a batch, `[batch, length]`, row by row; all within the embedding's rows.
#[derive(Clone, Copy, Debug)]
pub struct TokenIds<'a> {
    /// The ids.
    pub ids: &'a [i32],
    /// Rows.
    pub batch: usize,
    /// Ids of a row.
    pub length: usize,
}

/// The bucket of each pair of positions, `[query, key]`.
#[derive(Clone, Debug)]
pub struct Buckets {
    /// `[query, key]`, row by row.
    pub ids: Vec<u32>,
    /// Positions that look.
    pub query: usize,
    /// Positions that are looked at.
    pub key: usize,
}

/// A rearrangement of an activation: for each position of the result, `[batch, length]` row by row, the
/// position it is copied from, counted the same way. A position may be copied several times or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Positions {
    /// `[batch, length]`, row by row.
    pub ids: Vec<i32>,
    /// Rows of the result.
    pub batch: usize,
    /// Positions of a row of the result.
    pub length: usize,
}

/// Everything attention needs besides queries, keys and values.
pub struct Attention<'a, Bias> {
    /// The number of heads, which divides the features.
    pub heads: usize,
    /// `[heads, query, key]`, added to the scores of every example. Scores are not scaled.
    pub bias: Option<&'a Bias>,
    /// Whether query `i` sees only keys `0..=i + key - query`.
    pub causal: bool,
    /// `[batch, key]`, 0 for a key that is hidden from all queries of its example. Every example has a
    /// visible key.
    pub key_mask: Option<&'a [u8]>,
    /// Dropout of the probabilities, indexed as `[batch, heads, query, key]`.
    pub dropout: Option<DropoutDraw>,
}

/// Which elements a dropout keeps: a function of the example's number in the whole batch and of the element's
/// index in that example, so that it does not matter how a batch is divided.
#[derive(Clone, Copy, Debug)]
pub struct DropoutDraw {
    rate: f32,
    stream: Philox,
    first_example: usize,
    /// Elements of an example.
    example: usize,
}

impl DropoutDraw {
    /// The draw at a site, for a tensor that is one example: another name gives other factors.
    pub fn new(rate: f64, seed: u64, site: &str) -> Self {
        DropoutDraw {
            rate: rate as f32,
            stream: Philox::new(seed, site),
            first_example: 0,
            example: usize::MAX,
        }
    }

    /// The draw for a tensor of several examples of so many elements, the first of which has this number in
    /// the whole batch.
    pub fn of_examples(self, first_example: usize, elements: usize) -> Self {
        DropoutDraw { first_example, example: elements.max(1), ..self }
    }

    /// The key of the stream, for devices that draw for themselves: block `example · 2^32 + i` of the stream
    /// decides elements `8 · i..8 · i + 8` of an example, with 16 bits each, the low half of a word first.
    pub fn key(&self) -> [u32; 2] {
        self.stream.key()
    }

    /// The number of the tensor's first example in the whole batch, and the elements of each.
    pub fn examples(&self) -> (usize, usize) {
        (self.first_example, self.example)
    }

    /// The 16-bit number below which an element is dropped, and the factor of an element that is kept.
    pub fn threshold(&self) -> (u32, f32) {
        ((self.rate * 65536.0) as u32, 1.0 / (1.0 - self.rate))
    }

    /// Writes the factors of a tensor's elements `first..`: 0 for a dropped one, `1 / (1 - rate)` for a kept one.
    pub fn factors(&self, first: usize, out: &mut [f32]) {
        let (threshold, keep) = self.threshold();
        let block_of = |example: usize, element: usize| {
            self.stream.block(((self.first_example + example) as u64) << 32 | (element / 8) as u64)
        };
        let (mut example, mut element) = (first / self.example, first % self.example);
        let mut block = block_of(example, element);
        for factor in out {
            if element == self.example {
                (example, element) = (example + 1, 0);
            }
            if element.is_multiple_of(8) {
                block = block_of(example, element);
            }
            let word = block[(element % 8) / 2];
            let draw = if element.is_multiple_of(2) { word & 0xFFFF } else { word >> 16 };
            *factor = if draw < threshold { 0.0 } else { keep };
            element += 1;
        }
    }

    /// The factors of the first elements, drawn on all threads.
    pub fn first_factors(&self, elements: usize) -> Vec<f32> {
        /// Elements a thread draws at a time.
        const PIECE: usize = 1 << 14;
        let mut factors = vec![0.0; elements];
        let pieces = factors.par_chunks_mut(PIECE).enumerate();
        pieces.for_each(|(index, factors)| self.factors(index * PIECE, factors));
        factors
    }
}

/// How the loss is taken.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy {
    /// Factor of the summed loss: the reciprocal of the number of target tokens gives the mean.
    pub scale: f32,
    /// Coefficient of `log(Z)^2`, which keeps logits from drifting (T5X); 0 for none.
    pub z_loss: f32,
}

/// How well a label was predicted. For a label that does not count, both are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenLoss {
    /// Cross-entropy in nats, without z-loss.
    pub loss: f64,
    /// Whether the most likely prediction (the first, in a tie) is the label.
    pub correct: bool,
}

/// A result that a device may not have computed yet. Reading it waits for the device.
pub struct Pending<T>(Box<dyn FnOnce() -> T>);

impl<T> Pending<T> {
    /// A result that `read` waits for.
    pub fn new(read: impl FnOnce() -> T + 'static) -> Self {
        Pending(Box::new(read))
    }

    /// The result. Waits for the device.
    pub fn read(self) -> T {
        (self.0)()
    }
}

impl<T: 'static> From<T> for Pending<T> {
    /// A result that is already known.
    fn from(value: T) -> Self {
        Pending::new(move || value)
    }
}

/// A parameter that an update changes.
pub struct Trained<'a, O: Ops> {
    /// The weights.
    pub parameter: &'a mut O::Parameter,
    /// The optimiser's state of the parameter.
    pub moments: &'a mut Moments<O::Moment>,
    /// What it is.
    pub role: Role,
}

/// T5's operations on a device.
pub trait Ops: Sized {
    /// A trainable tensor of one or two dimensions.
    type Parameter;
    /// `[batch, length, features]`.
    type Activation: Clone;
    /// `[heads, query, key]`.
    type Bias;
    /// A scalar to differentiate.
    type Loss;
    /// The gradient of a parameter.
    type Gradient;
    /// A running average that the optimiser keeps, in the memory where updates are computed: [`HostTensor`]
    /// if on the host.
    type Moment;

    /// Puts a tensor on the device.
    fn parameter(&self, tensor: HostTensor) -> Self::Parameter;
    /// Copies a parameter to the host.
    fn read_parameter(&self, parameter: &Self::Parameter) -> HostTensor;
    /// Replaces a parameter's values.
    fn write_parameter(&self, parameter: &mut Self::Parameter, tensor: HostTensor) {
        *parameter = self.parameter(tensor);
    }
    /// Copies an activation to the host.
    fn read_activation(&self, activation: &Self::Activation) -> HostTensor;
    /// Puts a gradient on the device.
    fn gradient(&self, tensor: HostTensor) -> Self::Gradient;
    /// Copies a gradient to the host.
    fn read_gradient(&self, gradient: &Self::Gradient) -> HostTensor;

    /// Starts or stops recording operations for [`Ops::backward`].
    fn record(&mut self, on: bool);

    /// Rows of `table` `[rows, features]`.
    fn embedding(&self, table: &Self::Parameter, ids: TokenIds<'_>) -> Self::Activation;
    /// `x · weightᵀ` with `weight` `[out, in]`.
    fn linear(&self, x: &Self::Activation, weight: &Self::Parameter) -> Self::Activation;
    /// Several [`Ops::linear`] of the same `x`. By default one after the other; a single product for all of
    /// them is faster.
    fn linears<const N: usize>(
        &self,
        x: &Self::Activation,
        weights: [&Self::Parameter; N],
    ) -> [Self::Activation; N] {
        weights.map(|weight| self.linear(x, weight))
    }
    /// `gain · x / sqrt(mean(x²) + epsilon)`, with a mean for each group of features; the widths `groups` add
    /// up to the features.
    fn rms_norm(
        &self,
        x: &Self::Activation,
        gain: &Self::Parameter,
        groups: &[usize],
        epsilon: f32,
    ) -> Self::Activation;
    /// The rows of `table` `[buckets, heads]` that belong to the pairs of positions.
    fn position_bias(&self, table: &Self::Parameter, buckets: &Buckets) -> Self::Bias;
    /// `softmax(q · kᵀ + bias) · v` for each head; `q` is `[batch, query, heads · d_kv]`, `k` and `v` are
    /// `[batch, key, heads · d_kv]`.
    fn attention(
        &self,
        q: &Self::Activation,
        k: &Self::Activation,
        v: &Self::Activation,
        attention: Attention<'_, Self::Bias>,
    ) -> Self::Activation;
    /// `gelu_new(gate) · value`; the GELU is the tanh approximation.
    fn gated_gelu(&self, gate: &Self::Activation, value: &Self::Activation) -> Self::Activation;
    /// `max(x, 0)`.
    fn relu(&self, x: &Self::Activation) -> Self::Activation;
    /// `x + y`.
    fn add(&self, x: &Self::Activation, y: &Self::Activation) -> Self::Activation;
    /// `factor · x`.
    fn scale(&self, x: &Self::Activation, factor: f32) -> Self::Activation;
    /// `x` times the factors of the draw, which is indexed as `x` is.
    fn dropout(&self, x: &Self::Activation, draw: DropoutDraw) -> Self::Activation;
    /// `x` followed by `y` along the length. Used only in generation, so it needs no gradient.
    fn append(&self, x: &Self::Activation, y: &Self::Activation) -> Self::Activation;
    /// Copies positions of `x` into a new arrangement. Used only in generation, so it needs no gradient. By
    /// default through the host.
    fn gather(&self, x: &Self::Activation, positions: &Positions) -> Self::Activation {
        let HostTensor { shape, data } = self.read_activation(x);
        let features = shape.last().copied().unwrap_or(1);
        let table = self.parameter(HostTensor { shape: vec![data.len() / features, features], data });
        let Positions { ids, batch, length } = positions;
        self.embedding(&table, TokenIds { ids, batch: *batch, length: *length })
    }
    /// The loss of predicting `labels` `[batch, length]` (negative ones do not count) from `x · headᵀ`, in
    /// one operation, so that the logits need not all exist at once; and the loss of each label.
    fn cross_entropy(
        &self,
        x: &Self::Activation,
        head: &Self::Parameter,
        labels: &[i32],
        how: CrossEntropy,
    ) -> (Self::Loss, Pending<Vec<TokenLoss>>);

    /// A copy of `x` to differentiate with respect to; no gradient flows through it to what `x` was computed
    /// from.
    fn leaf(&self, x: &Self::Activation) -> Self::Activation;
    /// A loss whose gradient with respect to `y` is `dy`.
    fn product(&self, y: &Self::Activation, dy: &Self::Activation) -> Self::Loss;
    /// The gradients of `leaves` and `parameters`, zeros where the loss does not depend on one. Discards the
    /// recording.
    fn backward(
        &self,
        loss: Self::Loss,
        leaves: &[&Self::Activation],
        parameters: &[&Self::Parameter],
    ) -> (Vec<Self::Activation>, Vec<Self::Gradient>);
    /// The gradients of `parameters`, each passed on with the parameter's index as soon as nothing more will be
    /// added to it, in an order that depends on the recording alone. By default all of them at the end.
    fn backward_in_turn(
        &self,
        loss: Self::Loss,
        parameters: &[&Self::Parameter],
        ready: &mut dyn FnMut(usize, Self::Gradient),
    ) {
        let (_, gradients) = self.backward(loss, &[], parameters);
        gradients.into_iter().enumerate().rev().for_each(|(index, gradient)| ready(index, gradient));
    }
    /// Adds a gradient to a sum.
    fn accumulate(&self, total: &mut Self::Gradient, gradient: Self::Gradient);
    /// The sum of the squares of all elements.
    fn squared_norm(&self, gradients: &[Self::Gradient]) -> f64;

    /// Begins to add up gradients over all processes of a group, in one exchange. By default through the host.
    ///
    /// # Errors
    /// See [`ProcessGroup::all_reduce`].
    fn all_reduce<'a>(
        &'a self,
        group: &'a dyn ProcessGroup,
        gradients: Vec<Self::Gradient>,
    ) -> Result<Reducing<'a, Vec<Self::Gradient>>, GroupError> {
        all_reduce_on_host(self, group, gradients)
    }

    /// Whether the device computes while the host continues, so that reading a result means waiting.
    fn is_asynchronous(&self) -> bool {
        false
    }

    /// Copies a moment to where updates are computed.
    fn moment(&self, tensor: HostTensor) -> Self::Moment;
    /// Copies a moment to the host.
    fn read_moment(&self, moment: &Self::Moment) -> HostTensor;
    /// One step of the optimiser for all parameters, with the gradients clipped together. Returns the norm of
    /// the gradients before clipping. If it is not finite, no parameter changes; on an asynchronous device,
    /// later steps change nothing either until the norm has been read. By default one [`Ops::update`] after
    /// the other.
    fn update_all(
        &self,
        trained: Vec<Trained<'_, Self>>,
        gradients: Vec<Self::Gradient>,
        update: &Update,
    ) -> Pending<f64> {
        update_each(self, trained, gradients, update).into()
    }

    /// One step of the optimiser for one parameter, by the rule of [`ParameterUpdate::apply`]. By default on
    /// the host.
    fn update(
        &self,
        parameter: &mut Self::Parameter,
        gradient: Self::Gradient,
        moments: &mut Moments<Self::Moment>,
        update: &ParameterUpdate,
    ) {
        let mut weights = self.read_parameter(parameter);
        let gradient = self.read_gradient(&gradient);
        let mut on_host = std::mem::take(moments).map(|moment| self.read_moment(&moment));
        update.apply(&weights.shape, &mut weights.data, &gradient.data, &mut on_host);
        *parameter = self.parameter(weights);
        *moments = on_host.map(|moment| self.moment(moment));
    }
}

/// [`Ops::all_reduce`] of gradients that are copied to the host and back.
pub fn all_reduce_on_host<'a, O: Ops>(
    ops: &'a O,
    group: &'a dyn ProcessGroup,
    gradients: Vec<O::Gradient>,
) -> Result<Reducing<'a, Vec<O::Gradient>>, GroupError> {
    let (mut shapes, mut values) = (Vec::new(), Vec::new());
    for gradient in gradients {
        let HostTensor { shape, data } = ops.read_gradient(&gradient);
        shapes.push(shape);
        values.extend(data);
    }
    let sums = group.all_reduce(values)?;
    Ok(Box::new(move || {
        let sums = sums()?;
        let mut rest = sums.as_slice();
        let gradient = |shape: Vec<usize>| {
            let (own, others) = rest.split_at(shape.iter().product());
            rest = others;
            ops.gradient(HostTensor { shape, data: own.to_vec() })
        };
        Ok(shapes.into_iter().map(gradient).collect())
    }))
}

/// [`Ops::update_all`], one parameter after the other. Returns the gradients' norm.
pub fn update_each<O: Ops>(
    ops: &O,
    trained: Vec<Trained<'_, O>>,
    gradients: Vec<O::Gradient>,
    update: &Update,
) -> f64 {
    let norm = ops.squared_norm(&gradients).sqrt();
    if norm.is_finite() {
        for (Trained { parameter, moments, role }, gradient) in trained.into_iter().zip(gradients) {
            ops.update(parameter, gradient, moments, &update.of_parameter(norm, role));
        }
    }
    norm
}
