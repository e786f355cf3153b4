//! The fusion plan: an intermediate representation that says, for every parameter of the child, which part of which
//! parent goes where. It is plain data; [`FusionPlan::validate`] defines which plans are sound.

mod display;
pub(crate) mod geometry;
mod validate;
mod warning;

use serde::{Deserialize, Serialize};

use crate::table::{AxisRule, Dim, Factor, elements};
use crate::{Error, Result, TensorSource};

pub use warning::Warning;

/// How T5's normalisation treats the child's model dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Normalisation {
    /// Each parent's slice is normalised on its own (`fusion-prop`): exact, but needs a grouped normalisation.
    #[cfg_attr(feature = "clap", value(help = None::<&str>))]
    Property,
    /// The concatenation is normalised as one vector (`fusion-rule`): stock T5, but inexact unless the slices are equal.
    #[cfg_attr(feature = "clap", value(help = None::<&str>))]
    Rule,
}

/// The standard deviation of normal cross-connections.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandardDeviation {
    /// In the units of the weights.
    Absolute(f64),
    /// In units of the root mean square (about zero) of the values placed in the same parameter, without those of absent
    /// parents.
    Relative(f64),
}

/// How to fill the cross-connections of a parameter: the elements that lie in no parent's place although their row and
/// their column each belong to a parent. Elements outside every parent's rows or columns are padding, and always zero.
///
/// The rows and columns of an [absent](Absence) parent take part: what connects it to the others is filled, its own
/// place is not. Zero connections leave its residual stream as it is. Normal ones change every prediction a little, with
/// or without absent parents, and let gradients reach the features of an absent parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// With zeros.
    #[default]
    Zero,
    /// With independent normal draws of mean zero, each a function of the seed, the parameter's name and the
    /// element's index in the stored tensor.
    Normal {
        /// The standard deviation of the draws.
        std: StandardDeviation,
        /// The seed of the draws.
        seed: u64,
        /// Which connections are filled; the others are zero.
        #[serde(default, skip_serializing_if = "Direction::is_both")]
        direction: Direction,
    },
}

impl Fill {
    /// Normal connections in both directions.
    pub const fn normal(std: StandardDeviation, seed: u64) -> Self {
        Fill::Normal { std, seed, direction: Direction::Both }
    }
}

/// Which parents' outputs see which parents' inputs through cross-connections. All other connections are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Direction {
    /// From every parent into every other.
    #[default]
    Both,
    /// From earlier parents into later ones only.
    Forward,
    /// From later parents into earlier ones only.
    Backward,
}

impl Direction {
    // For serde.
    fn is_both(&self) -> bool {
        *self == Direction::Both
    }

    /// Whether there are connections from one parent's inputs to another's outputs.
    pub(crate) fn connects(self, input: usize, output: usize) -> bool {
        match self {
            Direction::Both => true,
            Direction::Forward => input < output,
            Direction::Backward => input > output,
        }
    }
}

/// A parent of the child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanParent {
    /// A name for messages.
    pub label: String,
    /// The hash of its weights, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
}

/// Places a parent's tensor, or a box of it, scaled, into a box of the child's tensor. Coordinates are logical: one for
/// each factor of each dimension, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Index into [`FusionPlan::parents`].
    pub parent: usize,
    /// The tensor's name in that parent.
    pub source: String,
    /// Where the box begins in the source, if it is not the whole tensor; its extent is that in the child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SourceBox>,
    /// Where the box begins in the child.
    pub offset: Vec<usize>,
    /// The size of the box.
    pub extent: Vec<usize>,
    /// What the values are multiplied by.
    pub scale: f64,
    /// What is added to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
    /// The derivative of the loss with respect to an element of this place, in units of the derivative with respect to
    /// the source's element when the parent computes the loss alone and all parents predict alike: 1/2 for most weights
    /// of a pair of parents, whose logits are averaged. An optimiser's moments are carried over with it. `None` if it is
    /// not such a constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient: Option<f64>,
}

/// Where a box lies in a parent's tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceBox {
    /// Where the box begins.
    pub offset: Vec<usize>,
    /// The sizes of the parent's tensor, one for each axis.
    pub sizes: Vec<usize>,
}

/// Normal draws that are added to a place. Two places with the same `pair` and source box get the same draws. If their
/// factors cancel and their inputs are copies of each other, the sum over them does not change (HyperCloning, Section 3).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// The standard deviation of the draws.
    pub std: StandardDeviation,
    /// The seed of the draws.
    pub seed: u64,
    /// Selects the draws, which are a function of the seed, the parameter's name, this number, and the element's index in
    /// the source.
    pub pair: u64,
    /// What the draws are multiplied by.
    pub factor: f64,
}

/// The place of a parent that lacks the parameter: a box of the child's tensor, like that of a [`Placement`], filled with
/// `value`. A block whose output projections are zero passes the residual stream on unchanged, which makes room for a
/// parent with fewer blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absence {
    /// Index into [`FusionPlan::parents`].
    pub parent: usize,
    /// Where the box begins in the child.
    pub offset: Vec<usize>,
    /// The size of the box.
    pub extent: Vec<usize>,
    /// The value of every element.
    pub value: f64,
}

/// One parameter of the child. Each element is the sum of the placements that cover it, or an absent parent's value;
/// `fill` determines the cross-connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedParam {
    /// The name of the child's tensor.
    pub name: String,
    /// One entry for each dimension of the stored tensor.
    pub dims: Vec<Dim>,
    /// What the parents contribute.
    pub placements: Vec<Placement>,
    /// The places of parents that lack the parameter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absence>,
    /// The cross-connections.
    #[serde(default)]
    pub fill: Fill,
    /// The dimension that a product with this weight sums over, its input; see
    /// [`ParamSpec::contracts`](crate::table::ParamSpec).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contracts: Option<usize>,
}

/// What a fusion or a growth does, parameter by parameter. [`Display`](std::fmt::Display) shows it as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusionPlan {
    /// The name of the method that made the plan.
    pub method: String,
    /// The parents, in the order that [`Placement::parent`] counts in.
    pub parents: Vec<PlanParent>,
    /// How the child normalises its model dimension.
    pub normalisation: Normalisation,
    /// The groups of the child's `Embed` axis that are normalised separately; they add up to its size. One group is a
    /// stock RMSNorm; none means that no parameter has an `Embed` axis.
    pub embed_groups: Vec<usize>,
    /// The child's parameters, in its order.
    pub params: Vec<PlannedParam>,
}

impl PlannedParam {
    /// The stored shape.
    pub fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(Dim::size).collect()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        elements(&self.dims)
    }

    /// The logical coordinates' axes and sizes.
    pub(crate) fn factors(&self) -> impl Iterator<Item = Factor> {
        self.dims.iter().flat_map(|dim| dim.factors.iter().copied())
    }

    /// The number of dimensions along which parents follow one another; with two or more there are cross-connections.
    pub(crate) fn fused_dims(&self) -> usize {
        let fused = |dim: &&Dim| dim.factors.iter().any(|factor| factor.axis.rule() == AxisRule::Fused);
        self.dims.iter().filter(fused).count()
    }

    /// Whether two placements of this parameter share elements.
    pub(crate) fn has_overlap(&self) -> bool {
        self.placements
            .iter()
            .enumerate()
            .any(|(i, a)| self.placements.iter().skip(i + 1).any(|b| a.place().overlaps(b.place())))
    }
}

/// A parent's box in a parameter of the child.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Place<'a> {
    pub offset: &'a [usize],
    pub extent: &'a [usize],
}

impl Placement {
    pub(crate) fn place(&self) -> Place<'_> {
        Place { offset: &self.offset, extent: &self.extent }
    }

    /// The sizes of the source's axes.
    pub(crate) fn source_sizes(&self) -> &[usize] {
        self.from.as_ref().map_or(&self.extent, |from| &from.sizes)
    }

    /// The shape of the source tensor, for a parameter with these dimensions.
    pub fn source_shape(&self, dims: &[Dim]) -> Vec<usize> {
        shape(self.source_sizes(), dims)
    }
}

impl Absence {
    pub(crate) fn place(&self) -> Place<'_> {
        Place { offset: &self.offset, extent: &self.extent }
    }
}

impl<'a> Place<'a> {
    /// The logical ranges `(start, end)`; saturating, which [`FusionPlan::validate`] reports as out of bounds.
    pub(crate) fn ranges(self) -> impl Iterator<Item = (usize, usize)> + 'a {
        self.offset.iter().zip(self.extent).map(|(&offset, &extent)| (offset, offset.saturating_add(extent)))
    }

    pub(crate) fn overlaps(self, other: Place<'_>) -> bool {
        self.ranges().zip(other.ranges()).all(|(a, b)| a.0 < b.1 && b.0 < a.1)
    }
}

/// The stored shape if the axes of `dims` had these sizes.
pub(crate) fn shape(sizes: &[usize], dims: &[Dim]) -> Vec<usize> {
    let mut sizes = sizes.iter();
    dims.iter()
        .map(|dim| {
            let sizes = sizes.by_ref().take(dim.factors.len());
            sizes.fold(1, |product: usize, size| product.saturating_mul(*size))
        })
        .collect()
}

impl FusionPlan {
    /// The number of scalars in the child.
    pub fn parameter_count(&self) -> u64 {
        self.params.iter().map(|param| param.elements() as u64).fold(0, u64::saturating_add)
    }

    /// What is random in the child: how the first parameter that has anything random fills its cross-connections, or the
    /// noise that tells its copies apart. [`Fill::Zero`] if nothing is random.
    pub fn cross(&self) -> Fill {
        let fill = |param: &PlannedParam| {
            let noise = param.placements.iter().find_map(|placement| placement.noise);
            let noise = noise.map(|Noise { std, seed, .. }| Fill::normal(std, seed));
            (param.fill != Fill::Zero).then_some(param.fill).or(noise)
        };
        self.params.iter().find_map(fill).unwrap_or_default()
    }

    /// Checks the parents' headers without reading any values: there is one source for each parent, and every tensor that
    /// a placement reads exists with the planned shape and a floating-point type.
    pub fn check_sources(&self, sources: &[&dyn TensorSource]) -> Result<()> {
        if sources.len() != self.parents.len() {
            return Err(Error::SourceCount { parents: self.parents.len(), sources: sources.len() });
        }
        for param in &self.params {
            for placement in &param.placements {
                let (Some(source), Some(parent)) =
                    (sources.get(placement.parent), self.parents.get(placement.parent))
                else {
                    let (parent, parents) = (placement.parent, self.parents.len());
                    return Err(Error::NoSuchParent { parameter: param.name.clone(), parent, parents });
                };
                let view = source.view(&placement.source)?;
                let expected = placement.source_shape(&param.dims);
                if view.shape() != expected {
                    return Err(Error::SourceShape {
                        parent: parent.label.clone(),
                        tensor: placement.source.clone(),
                        expected,
                        found: view.shape().to_vec(),
                    });
                }
                crate::tensor::float_size(&placement.source, view.dtype())?;
            }
        }
        Ok(())
    }
}
