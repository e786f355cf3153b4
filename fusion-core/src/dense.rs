//! A worked example: fusing dense networks, `a_k = g_k(a_{k-1} w_k + b_k)` (Eq. 1).
//!
//! A network's [table](DenseNetwork::table) is all that a fusion needs to know about it. The first weight is
//! `[input, hidden]`: the input is shared and the parents' hidden features follow one another, so the fused weight holds
//! the parents' weights side by side (Eq. 3). The weights in between are `[hidden, hidden]`, with two fused axes: the
//! parents' weights lie on the diagonal, and cross-connections elsewhere (Eq. 4). Biases are concatenated (Eq. 5). The
//! last weight, `[hidden, output]`, stacks the parents' weights. It is averaged, and so scaled by `1/n`, as is the bias
//! `[output]`, which has no fused axis and is therefore summed: the logits are the average of the parents'.
//!
//! ```
//! use fusion_core::dense::{Activation, DenseNetwork};
//! use fusion_core::grow::{DirectSum, direct_sum, Part};
//! use fusion_core::execute::Executor;
//! use fusion_core::TensorSource;
//!
//! let small = DenseNetwork::random(&[4, 3, 5, 2], Activation::Relu, 1)?;
//! let large = DenseNetwork::random(&[4, 6, 7, 2], Activation::Relu, 2)?;
//!
//! // From tables to a plan, which can be printed, stored and read back.
//! let (small_table, large_table) = (small.table()?, large.table()?);
//! let part = |label, table| Part { label, blake3: None, table, embed_groups: &[] };
//! let plan = direct_sum(&[part("small", &small_table), part("large", &large_table)], &DirectSum::default())?;
//! println!("{plan}");
//!
//! // From the plan and the parents' weights to the child.
//! let sources: [&dyn TensorSource; 2] = [small.tensors(), large.tensors()];
//! let child = DenseNetwork::new(Executor::new(&plan, &sources)?.in_memory()?, Activation::Relu)?;
//!
//! let x = [0.5, -1.0, 2.0, 0.25];
//! let (a, b, fused) = (small.forward(&x)?, large.forward(&x)?, child.forward(&x)?);
//! // Hidden activations are concatenated, logits averaged.
//! assert_eq!(fused[0], [a[0].as_slice(), &b[0]].concat());
//! assert!((fused[2][0] - (a[2][0] + b[2][0]) / 2.0).abs() < 1e-5);
//! # Ok::<(), fusion_core::Error>(())
//! ```

use crate::random::Philox;
use crate::table::{Axis, ParamSpec, ParamTable, dim};
use crate::{Error, HostTensor, HostTensors, Result};

/// The activation function of the hidden layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
}

/// A dense network with at least one layer: `layers.{k}.weight` `[in, out]` and `layers.{k}.bias` `[out]`. The last
/// layer gives the logits, without an activation function.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseNetwork {
    tensors: HostTensors,
    /// The number of features of the input, of each hidden layer, and of the output.
    widths: Vec<usize>,
    activation: Activation,
}

impl DenseNetwork {
    /// Takes the layers from tensors. Fails if their shapes do not fit together.
    pub fn new(tensors: HostTensors, activation: Activation) -> Result<Self> {
        let mut widths = Vec::new();
        loop {
            let (weight_name, bias_name) = names(widths.len().saturating_sub(1));
            if widths.len() > 1 && !tensors.contains_key(&weight_name) {
                break;
            }
            let (weight, bias) = (get(&tensors, &weight_name)?, get(&tensors, &bias_name)?);
            let &[input, output] = weight.shape.as_slice() else {
                return Err(weight.mismatch(&weight_name));
            };
            let follows = widths.last().is_none_or(|&width| width == input);
            if !follows || input.checked_mul(output) != Some(weight.data.len()) {
                return Err(weight.mismatch(&weight_name));
            }
            if bias.shape != [output] || bias.data.len() != output {
                return Err(bias.mismatch(&bias_name));
            }
            if widths.is_empty() {
                widths.push(input);
            }
            widths.push(output);
        }
        Ok(DenseNetwork { tensors, widths, activation })
    }

    /// A network with normal weights of standard deviation `in^-1/2`, and normal biases.
    pub fn random(widths: &[usize], activation: Activation, seed: u64) -> Result<Self> {
        let mut tensors = HostTensors::default();
        for (layer, pair) in widths.windows(2).enumerate() {
            let (weight_name, bias_name) = names(layer);
            let mut add = |name: String, shape: &[usize], std: f64| {
                let mut tensor = HostTensor::zeros(shape);
                Philox::new(seed, &name).fill_normal(0, std, &mut tensor.data);
                tensors.insert(name, tensor);
            };
            add(weight_name, pair, (pair[0] as f64).sqrt().recip());
            add(bias_name, &pair[1..], 1.0);
        }
        DenseNetwork::new(tensors, activation)
    }

    /// The parameters and their axes.
    pub fn table(&self) -> Result<ParamTable> {
        let last = self.widths.len().saturating_sub(2);
        let layers = self.widths.windows(2).enumerate().flat_map(|(layer, pair)| {
            let input = if layer == 0 { Axis::Input } else { Axis::Hidden };
            let output = if layer == last { Axis::Output } else { Axis::Hidden };
            let (weight, bias) = names(layer);
            let weight = ParamSpec::new(weight, [dim(input, pair[0]), dim(output, pair[1])]).contracting(0);
            let bias = ParamSpec::new(bias, [dim(output, pair[1])]);
            if layer == last { [weight.averaged(), bias.averaged()] } else { [weight, bias] }
        });
        ParamTable::new(layers)
    }

    /// The weights and biases.
    pub fn tensors(&self) -> &HostTensors {
        &self.tensors
    }

    /// The activations of each layer for one input; the last are the logits.
    pub fn forward(&self, input: &[f32]) -> Result<Vec<Vec<f32>>> {
        let elements = input.len();
        if self.widths.first() != Some(&elements) {
            return Err(Error::ShapeMismatch {
                tensor: "input".into(),
                shape: self.widths[..1].into(),
                elements,
            });
        }
        let mut activations: Vec<Vec<f32>> = Vec::new();
        let layers = self.widths.len() - 1;
        for layer in 0..layers {
            let (weight, bias) = names(layer);
            let (weight, bias) = (get(&self.tensors, &weight)?, get(&self.tensors, &bias)?);
            // In f64, so that the order of the terms, which fusion changes, hardly matters.
            let mut sums: Vec<f64> = bias.data.iter().map(|&b| f64::from(b)).collect();
            let previous = activations.last().map_or(input, Vec::as_slice);
            for (&a, row) in previous.iter().zip(weight.data.chunks_exact(sums.len())) {
                sums.iter_mut().zip(row).for_each(|(sum, &w)| *sum += f64::from(a) * f64::from(w));
            }
            let activation = |sum: f64| match self.activation {
                _ if layer + 1 == layers => sum,
                Activation::Relu => sum.max(0.0),
                Activation::Tanh => sum.tanh(),
            };
            activations.push(sums.into_iter().map(|sum| activation(sum) as f32).collect());
        }
        Ok(activations)
    }
}

/// The names of a layer's weight and bias.
fn names(layer: usize) -> (String, String) {
    (format!("layers.{layer}.weight"), format!("layers.{layer}.bias"))
}

fn get<'a>(tensors: &'a HostTensors, name: &str) -> Result<&'a HostTensor> {
    tensors.get(name).ok_or_else(|| Error::no_tensor("the dense network", name))
}
