//! The fusion plan: an intermediate representation that says, for every parameter of the child, which part of which
//! parent goes where. Plain data; see [`FusionPlan::validate`] for what makes it sound.

mod display;
pub(crate) mod geometry;
mod validate;
mod warning;

use serde::{Deserialize, Serialize};

use crate::table::{AxisRule, Dim, Factor};
use crate::{Error, Result, TensorSource};

pub use warning::Warning;

/// How T5's normalisation treats the child's model dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Normalisation {
    /// Every parent's slice is normalised by itself (`fusion-prop`): exact, needs a grouped normalisation.
    #[cfg_attr(feature = "clap", value(help = None::<&str>))]
    Property,
    /// The concatenation is normalised as one vector (`fusion-rule`): stock T5, inexact unless the slices are equal.
    #[cfg_attr(feature = "clap", value(help = None::<&str>))]
    Rule,
}

/// The standard deviation of normal cross-connections.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandardDeviation {
    Absolute(f64),
    /// In units of the root mean square (about zero) of the values placed in the same parameter, those of absent
    /// parents left out.
    Relative(f64),
}

/// The cross-connections of a parameter: its elements in no parent's place although their row and their column each
/// belong to a parent. Elements outside of every parent's rows or columns are padding, and always zero.
///
/// The rows and columns of an [absent](Absence) parent take part: what connects it with the others is filled, its own
/// place is not. Zero connections keep its residual stream as it is; normal ones change every prediction a little, with
/// or without absent parents, and let the features of an absent parent get gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    #[default]
    Zero,
    /// Independent normal draws with mean zero, a function of the seed, the parameter's name and the element's
    /// index in the stored tensor.
    Normal {
        std: StandardDeviation,
        seed: u64,
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

/// Which parents' outputs see which parents' inputs through cross-connections. What is left out is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Direction {
    /// Every parent's outputs see every other's inputs.
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

/// A parent of the child: a name for texts, and the hash of its weights where known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanParent {
    pub label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
}

/// A tensor of a parent, or a box of it, scaled, in a box of the child's tensor. Coordinates are logical: one for each
/// factor of each dimension, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Index into [`FusionPlan::parents`].
    pub parent: usize,
    /// The tensor's name in that parent.
    pub source: String,
    /// The box of the source, as large as the child's; `None` for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SourceBox>,
    pub offset: Vec<usize>,
    pub extent: Vec<usize>,
    pub scale: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
    /// The loss's derivative by an element of this place, in units of its derivative by the source's element when the
    /// parent computes the loss by itself, all parents predicting alike: 1/2 in most weights of a pair of parents, whose
    /// logits are averaged. What moments of an optimiser are carried over by. `None` where it is no such constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient: Option<f64>,
}

/// Where a box begins in a parent's tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceBox {
    pub offset: Vec<usize>,
    /// The sizes of the parent's tensor.
    pub sizes: Vec<usize>,
}

/// Normal numbers added to a place. Two places with the same `pair` and source box get the same numbers; with factors
/// that cancel, and inputs that are copies of each other, the sum over them stays what it was (HyperCloning, Section 3).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    pub std: StandardDeviation,
    pub seed: u64,
    /// Which numbers: a function of the seed, the parameter's name, this, and the element's index in the source.
    pub pair: u64,
    pub factor: f64,
}

/// The place of a parent that lacks the parameter, as a box of the child's tensor like that of a [`Placement`]. Every
/// element in it is `value`. A block of zero output projections passes the residual stream on unchanged, which makes
/// room for a parent with fewer blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absence {
    /// Index into [`FusionPlan::parents`].
    pub parent: usize,
    pub offset: Vec<usize>,
    pub extent: Vec<usize>,
    pub value: f64,
}

/// One parameter of the child. Elements are the sums of the placements that cover them, or an absent parent's value;
/// `fill` says what the cross-connections are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedParam {
    pub name: String,
    pub dims: Vec<Dim>,
    pub placements: Vec<Placement>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absence>,
    #[serde(default)]
    pub fill: Fill,
    /// The dimension that a product with this weight sums over, its input. See [`ParamSpec::contracts`](crate::table::ParamSpec).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contracts: Option<usize>,
}

/// What a fusion does, parameter by parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusionPlan {
    /// The method that made the plan: `fuse`, the paper's direct sum, or one of the methods that grow one model.
    pub method: String,
    pub parents: Vec<PlanParent>,
    pub normalisation: Normalisation,
    /// The groups of the child's `Embed` axis that are normalised by themselves; they add up to its size. One group
    /// is a stock RMSNorm; none means that no parameter has an `Embed` axis.
    pub embed_groups: Vec<usize>,
    pub params: Vec<PlannedParam>,
}

impl PlannedParam {
    /// The stored shape.
    pub fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(Dim::size).collect()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().fold(1, |product, dim| product.saturating_mul(dim.size()))
    }

    /// The logical coordinates' axes and sizes.
    pub(crate) fn factors(&self) -> impl Iterator<Item = Factor> {
        self.dims.iter().flat_map(|dim| dim.factors.iter().copied())
    }

    /// The number of dimensions along which parents follow each other; from two on there are cross-connections.
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

    /// The shape of the source, of a parameter with these dimensions.
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

/// The stored shape of axes with other sizes than those of `dims`.
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

    /// What is random in the child: the filling of the cross-connections, or the noise that tells copies apart, of the
    /// first parameter which has some, or zero.
    pub fn cross(&self) -> Fill {
        let fill = |param: &PlannedParam| {
            let noise = param.placements.iter().find_map(|placement| placement.noise);
            let noise = noise.map(|Noise { std, seed, .. }| Fill::normal(std, seed));
            (param.fill != Fill::Zero).then_some(param.fill).or(noise)
        };
        self.params.iter().find_map(fill).unwrap_or_default()
    }

    /// Checks the parents' headers, and reads no values: one source for each parent, and every tensor that a
    /// placement reads is there with the planned shape and a floating-point type.
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

    /// The tensors of the sources that no placement reads, as (parent, name).
    pub fn unread_tensors(&self, sources: &[&dyn TensorSource]) -> Vec<(usize, String)> {
        let read: std::collections::HashSet<(usize, &str)> = self
            .params
            .iter()
            .flat_map(|param| &param.placements)
            .map(|placement| (placement.parent, placement.source.as_str()))
            .collect();
        let names = sources
            .iter()
            .enumerate()
            .flat_map(|(i, source)| source.names().into_iter().map(move |n| (i, n)));
        names.filter(|(parent, name)| !read.contains(&(*parent, name.as_str()))).collect()
    }
}
