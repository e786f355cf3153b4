//! The fusion plan: an intermediate representation that says, for every parameter of the child, which part of which
//! parent goes where. Plain data; see [`FusionPlan::validate`] for what makes it sound.

use serde::{Deserialize, Serialize};

use crate::spec::check_dims;
use crate::{Axis, AxisRule, Dim, Error, Factor, Result, TensorSource};

/// How T5's normalisation treats the child's model dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// Every parent's slice is normalised by itself (`fusion-prop`): exact, needs a grouped normalisation.
    Property,
    /// The concatenation is normalised as one vector (`fusion-rule`): stock T5, inexact unless the slices are equal.
    Rule,
}

/// The standard deviation of normal cross-connections.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandardDeviation {
    Absolute(f64),
    /// In units of the root mean square (about zero) of the values placed in the same parameter.
    Relative(f64),
}

/// The cross-connections of a parameter: its elements that no placement covers although their row and their column
/// each belong to a parent. Elements outside of every parent's rows or columns are padding, and always zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    #[default]
    Zero,
    /// Independent normal draws with mean zero, a function of the seed, the parameter's name and the element's
    /// index in the stored tensor.
    Normal { std: StandardDeviation, seed: u64 },
}

/// A parent of the child: a name for texts, and the hash of its weights where known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanParent {
    pub label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A whole tensor of a parent, scaled, in a box of the child's tensor. Coordinates are logical: one for each
/// factor of each dimension, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Index into [`FusionPlan::parents`].
    pub parent: usize,
    /// The tensor's name in that parent.
    pub source: String,
    pub offset: Vec<usize>,
    pub extent: Vec<usize>,
    pub scale: f64,
}

/// One parameter of the child. Elements are the sums of the placements that cover them; `fill` says what the
/// cross-connections are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedParam {
    pub name: String,
    pub dims: Vec<Dim>,
    pub placements: Vec<Placement>,
    #[serde(default)]
    pub fill: Fill,
}

/// What a fusion does, parameter by parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusionPlan {
    /// The method that made the plan: `fuse`, the paper's direct sum.
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

    /// Whether two placements of this parameter share elements.
    pub(crate) fn has_overlap(&self) -> bool {
        self.placements
            .iter()
            .enumerate()
            .any(|(i, a)| self.placements.iter().skip(i + 1).any(|b| a.overlaps(b)))
    }
}

impl Placement {
    /// The logical ranges `(start, end)`; saturating, which [`FusionPlan::validate`] reports as out of bounds.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (usize, usize)> {
        self.offset.iter().zip(&self.extent).map(|(&offset, &extent)| (offset, offset.saturating_add(extent)))
    }

    fn overlaps(&self, other: &Placement) -> bool {
        self.ranges().zip(other.ranges()).all(|(a, b)| a.0 < b.1 && b.0 < a.1)
    }

    fn covers_the_same_as(&self, other: &Placement) -> bool {
        self.offset == other.offset && self.extent == other.extent
    }

    /// The shape of the tensor this placement reads.
    pub(crate) fn source_shape(&self, dims: &[Dim]) -> Vec<usize> {
        let mut extents = self.extent.iter();
        dims.iter()
            .map(|dim| {
                extents
                    .by_ref()
                    .take(dim.factors.len())
                    .fold(1, |product: usize, e| product.saturating_mul(*e))
            })
            .collect()
    }
}

impl FusionPlan {
    /// The number of scalars in the child.
    pub fn parameter_count(&self) -> u64 {
        self.params.iter().map(|param| param.elements() as u64).fold(0, u64::saturating_add)
    }

    /// The filling of the cross-connections: that of the first parameter which has some, or zero.
    pub fn cross(&self) -> Fill {
        self.params.iter().map(|param| param.fill).find(|fill| *fill != Fill::Zero).unwrap_or_default()
    }

    /// Checks everything that can be checked without the parents' files, also for a plan that was read from JSON:
    /// names are distinct, placements lie inside their parameter and leave no gap along any axis, they are disjoint or
    /// average the same box, and the groups add up.
    pub fn validate(&self) -> Result<()> {
        if self.parents.is_empty() {
            return Err(Error::NoParents);
        }
        let mut names = std::collections::HashSet::with_capacity(self.params.len());
        for param in &self.params {
            if !names.insert(param.name.as_str()) {
                return Err(Error::DuplicateParameter { parameter: param.name.clone() });
            }
            check_dims(&param.name, &param.dims)?;
            self.check_placements(param)?;
            check_overlap(param)?;
            check_fill(param)?;
            self.check_groups(param)?;
        }
        Ok(())
    }

    fn check_placements(&self, param: &PlannedParam) -> Result<()> {
        let factors: Vec<Factor> = param.factors().collect();
        let parameter = || param.name.clone();
        if param.placements.is_empty() {
            return Err(Error::NothingPlaced { parameter: parameter() });
        }
        for placement in &param.placements {
            let Placement { parent, offset, extent, scale, .. } = placement;
            if *parent >= self.parents.len() {
                let (parent, parents) = (*parent, self.parents.len());
                return Err(Error::NoSuchParent { parameter: parameter(), parent, parents });
            }
            if offset.len() != factors.len() || extent.len() != factors.len() {
                let (offset, extent, axes) = (offset.len(), extent.len(), factors.len());
                return Err(Error::PlacementRank {
                    parameter: parameter(),
                    parent: *parent,
                    offset,
                    extent,
                    axes,
                });
            }
            if !scale.is_finite() {
                return Err(Error::Scale { parameter: parameter(), parent: *parent, scale: *scale });
            }
            for (factor, (start, end)) in factors.iter().zip(placement.ranges()) {
                if end > factor.size || start == end {
                    let (axis, size, parent) = (factor.axis, factor.size, *parent);
                    return Err(Error::OutOfBounds {
                        parameter: parameter(),
                        parent,
                        axis,
                        start,
                        end,
                        size,
                    });
                }
            }
        }
        for (index, factor) in factors.iter().enumerate() {
            let mut ranges: Vec<_> = param.placements.iter().filter_map(|p| p.ranges().nth(index)).collect();
            ranges.sort_unstable();
            ranges.push((factor.size, factor.size));
            let mut covered = 0;
            for (start, end) in ranges {
                if start > covered {
                    return Err(Error::Uncovered {
                        parameter: parameter(),
                        axis: factor.axis,
                        covered,
                        start,
                    });
                }
                covered = covered.max(end);
            }
        }
        Ok(())
    }

    fn check_groups(&self, param: &PlannedParam) -> Result<()> {
        let total = self.embed_groups.iter().fold(0usize, |sum, group| sum.saturating_add(*group));
        let embed = param.factors().find(|factor| factor.axis == Axis::Embed && factor.size != total);
        match embed {
            Some(factor) => Err(Error::Groups {
                parameter: param.name.clone(),
                size: factor.size,
                groups: self.embed_groups.clone(),
            }),
            None => Ok(()),
        }
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

/// Placements that share elements must be an average: of the same box, with scales that add up to 1.
fn check_overlap(param: &PlannedParam) -> Result<()> {
    for (i, a) in param.placements.iter().enumerate() {
        let mut total = a.scale;
        for (j, b) in param.placements.iter().enumerate() {
            if i == j || !a.overlaps(b) {
                continue;
            }
            if !a.covers_the_same_as(b) {
                return Err(Error::Overlap {
                    parameter: param.name.clone(),
                    first: a.parent,
                    second: b.parent,
                });
            }
            total += b.scale;
        }
        if total != a.scale && (total - 1.0).abs() > 1e-6 {
            return Err(Error::AverageScales { parameter: param.name.clone(), total });
        }
    }
    Ok(())
}

fn check_fill(param: &PlannedParam) -> Result<()> {
    let Fill::Normal { std, .. } = param.fill else { return Ok(()) };
    let (StandardDeviation::Absolute(std) | StandardDeviation::Relative(std)) = std;
    if !(std.is_finite() && std > 0.0) {
        return Err(Error::Deviation { std });
    }
    let fused = |dim: &&Dim| dim.factors.iter().any(|factor| factor.axis.rule() == AxisRule::Fused);
    if param.dims.iter().filter(fused).count() < 2 {
        return Err(Error::NoCrossConnections { parameter: param.name.clone() });
    }
    Ok(())
}
