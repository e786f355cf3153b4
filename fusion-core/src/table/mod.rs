//! Parameter tables: what each parameter of a model is called, which axes it has, and how logits average in it.

mod axis;

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

pub use axis::{Axis, AxisRule};

/// An axis with its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factor {
    /// The axis.
    pub axis: Axis,
    /// Its size, in elements.
    pub size: usize,
}

/// One dimension of a stored tensor: a product of axes, the last of which varies fastest. `joined_kv` is
/// `heads × kv`; most dimensions have a single factor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dim {
    /// The axes, outermost first.
    pub factors: Vec<Factor>,
}

/// A dimension with a single axis.
pub fn dim(axis: Axis, size: usize) -> Dim {
    Dim { factors: vec![Factor { axis, size }] }
}

/// A dimension that stores the product of two axes, `outer` first: `joined(Heads, 6, Kv, 64)`.
pub fn joined(outer: Axis, outer_size: usize, inner: Axis, inner_size: usize) -> Dim {
    Dim { factors: vec![Factor { axis: outer, size: outer_size }, Factor { axis: inner, size: inner_size }] }
}

impl Dim {
    /// The stored size, the product of the factors. Saturates, so that [`ParamTable::new`] refuses absurd sizes instead
    /// of wrapping around.
    pub fn size(&self) -> usize {
        self.factors.iter().fold(1, |product, factor| product.saturating_mul(factor.size))
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Factor { axis, size }) in self.factors.iter().enumerate() {
            let separator = if index == 0 { "" } else { " · " };
            write!(f, "{separator}{axis} {size}")?;
        }
        Ok(())
    }
}

/// How the average of the parents' logits (`AVG`, Section 3.1) is folded into a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Averaging {
    /// Not at all.
    #[default]
    None,
    /// Part `i` is scaled by its weight, `1/n` by default. For an untied head, a dense network's output layer, and
    /// the decoder's final norm when the head is tied and the logits are not scaled.
    Mean,
    /// Part `i` is scaled by `weight_i · sqrt(Σ d) / sqrt(d_i)`, where `d` is the size of its `Embed` axis. For the
    /// decoder's final norm when the head is tied and the logits are scaled by `d_model^-1/2` (T5 1.0), which would
    /// otherwise change with the child's width.
    MeanTied,
}

/// Where a model keeps the values of a parameter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// In the tensor with the parameter's name.
    #[default]
    SameName,
    /// In a tensor with another name, for example block 0 of a model that becomes block 2 of its child.
    Tensor(String),
    /// Nowhere: the model lacks the parameter, and would compute the same if it had one filled with this value. Zero for
    /// the weights of a block that passes the residual stream on unchanged, one for its gains.
    Absent(f64),
}

/// One parameter of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// The name in the model's checkpoint or, with an [`Origin`] other than the default, in its child's.
    pub name: String,
    /// One entry for each dimension of the stored tensor.
    pub dims: Vec<Dim>,
    /// Whether the average of the logits scales it.
    pub averaging: Averaging,
    /// Where the model keeps its values.
    #[serde(default)]
    pub origin: Origin,
    /// What the model's values are multiplied by to become this parameter's.
    #[serde(default = "one")]
    pub factor: f64,
    /// The dimension that a product with this weight sums over: 1 for `[out, in]`. `None` for parameters that are looked
    /// up, added or multiplied element by element.
    #[serde(default)]
    pub contracts: Option<usize>,
}

fn one() -> f64 {
    1.0
}

impl ParamSpec {
    /// A parameter without averaging, stored under its own name.
    pub fn new(name: impl Into<String>, dims: impl IntoIterator<Item = Dim>) -> Self {
        ParamSpec {
            name: name.into(),
            dims: dims.into_iter().collect(),
            averaging: Averaging::None,
            origin: Origin::SameName,
            factor: 1.0,
            contracts: None,
        }
    }

    /// Makes it the weight of a product that sums over a dimension.
    pub fn contracting(self, dimension: usize) -> Self {
        ParamSpec { contracts: Some(dimension), ..self }
    }

    /// Sets where the model keeps its values.
    pub fn from_origin(self, origin: Origin) -> Self {
        ParamSpec { origin, ..self }
    }

    /// Sets what the model's values are multiplied by.
    pub fn times(self, factor: f64) -> Self {
        ParamSpec { factor, ..self }
    }

    /// Sets [`Averaging::Mean`].
    pub fn averaged(self) -> Self {
        ParamSpec { averaging: Averaging::Mean, ..self }
    }

    /// Sets [`Averaging::MeanTied`].
    pub fn averaged_tied(self) -> Self {
        ParamSpec { averaging: Averaging::MeanTied, ..self }
    }

    /// The stored shape.
    pub fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(Dim::size).collect()
    }

    /// The number of elements; saturates like [`Dim::size`].
    pub fn elements(&self) -> usize {
        elements(&self.dims)
    }

    pub(crate) fn factors(&self) -> impl Iterator<Item = Factor> {
        self.dims.iter().flat_map(|dim| dim.factors.iter().copied())
    }
}

/// The parameters of a model, in the model's order, with distinct names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParamTable {
    specs: Vec<ParamSpec>,
    by_name: HashMap<String, usize>,
}

impl ParamTable {
    /// Checks that no name occurs twice, that every parameter has a dimension and every axis a size above zero, and
    /// that no parameter has more elements than can be addressed.
    pub fn new(specs: impl IntoIterator<Item = ParamSpec>) -> Result<Self> {
        let specs: Vec<ParamSpec> = specs.into_iter().collect();
        let mut by_name = HashMap::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            check_dims(&spec.name, &spec.dims)?;
            if by_name.insert(spec.name.clone(), index).is_some() {
                return Err(Error::DuplicateParameter { parameter: spec.name.clone() });
            }
        }
        Ok(ParamTable { specs, by_name })
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&ParamSpec> {
        self.by_name.get(name).and_then(|&index| self.specs.get(index))
    }

    /// The parameters in order.
    pub fn iter(&self) -> std::slice::Iter<'_, ParamSpec> {
        self.specs.iter()
    }

    /// The number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// The number of scalars in all tensors together.
    pub fn parameter_count(&self) -> u64 {
        self.specs.iter().map(|spec| spec.elements() as u64).fold(0, u64::saturating_add)
    }
}

impl<'a> IntoIterator for &'a ParamTable {
    type Item = &'a ParamSpec;
    type IntoIter = std::slice::Iter<'a, ParamSpec>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The number of elements of a tensor with these dimensions.
pub(crate) fn elements(dims: &[Dim]) -> usize {
    dims.iter().fold(1, |product, dim| product.saturating_mul(dim.size()))
}

/// The most elements a tensor may have: its size in bytes as f64 must fit `isize`.
const MAX_ELEMENTS: usize = isize::MAX as usize / 8;

pub(crate) fn check_dims(parameter: &str, dims: &[Dim]) -> Result<()> {
    if dims.is_empty() || dims.iter().any(|dim| dim.factors.is_empty()) {
        return Err(Error::NoAxes { parameter: parameter.into() });
    }
    if let Some(factor) = dims.iter().flat_map(|dim| &dim.factors).find(|factor| factor.size == 0) {
        return Err(Error::EmptyAxis { parameter: parameter.into(), axis: factor.axis });
    }
    if elements(dims) > MAX_ELEMENTS {
        let dims = dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::TooLarge { parameter: parameter.into(), dims });
    }
    Ok(())
}
