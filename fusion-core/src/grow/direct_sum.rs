//! The paper's fusion as a plan: the direct sum of any number of parents (Eq. 3–5), with averaged logits.

use super::Part;
use crate::plan::{Absence, Fill, FusionPlan, Normalisation, Placement, PlanParent, PlannedParam};
use crate::table::{Averaging, Axis, AxisRule, Dim, Factor, Origin, ParamSpec};
use crate::{Error, Result};

/// The options of a direct sum.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectSum {
    /// How the child normalises its model dimension.
    pub normalisation: Normalisation,
    /// How to fill the cross-connections of every parameter that has some.
    pub cross: Fill,
    /// The parents' weights in the average of the logits, which add up to 1; `1/n` each if `None`.
    pub weights: Option<Vec<f64>>,
}

impl Default for DirectSum {
    fn default() -> Self {
        DirectSum { normalisation: Normalisation::Property, cross: Fill::Zero, weights: None }
    }
}

/// Plans the direct sum of the parents. Every parameter must be in every parent's table, with the same axes; the order is
/// that of the first table. A table may describe a parameter as [absent](Origin::Absent), with the size it would have.
pub fn direct_sum(parts: &[Part<'_>], options: &DirectSum) -> Result<FusionPlan> {
    let first = parts.first().ok_or(Error::NoParents)?;
    let weights = weights(parts.len(), options.weights.as_deref())?;
    for (index, part) in parts.iter().enumerate() {
        if let Some(spec) = part.table.iter().find(|spec| first.table.get(&spec.name).is_none()) {
            return Err(missing(&spec.name, (index, part), (0, first)));
        }
    }
    let mut params = Vec::with_capacity(first.table.len());
    for spec in first.table {
        let mut specs = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            specs.push(
                part.table.get(&spec.name).ok_or_else(|| missing(&spec.name, (0, first), (index, part)))?,
            );
        }
        params.push(fuse_param(parts, &specs, &weights, options.cross)?);
    }
    let parents = parts
        .iter()
        .map(|part| PlanParent { label: part.label.into(), blake3: part.blake3.map(String::from) })
        .collect();
    let embed_groups = embed_groups(parts, options.normalisation)?;
    let normalisation = options.normalisation;
    let plan = FusionPlan { method: "fuse".into(), parents, normalisation, embed_groups, params };
    plan.validate()?;
    Ok(plan)
}

fn weights(parents: usize, given: Option<&[f64]>) -> Result<Vec<f64>> {
    let Some(weights) = given else { return Ok(vec![1.0 / parents as f64; parents]) };
    if weights.len() != parents {
        return Err(Error::WeightCount { weights: weights.len(), parents });
    }
    let total: f64 = weights.iter().sum();
    if total.is_nan() || (total - 1.0).abs() > 1e-6 {
        return Err(Error::WeightSum { total });
    }
    Ok(weights.to_vec())
}

/// The child's groups: those of the parents, one after the other, or a single one.
fn embed_groups(parts: &[Part<'_>], normalisation: Normalisation) -> Result<Vec<usize>> {
    let mut groups = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let mut factors = part.table.iter().flat_map(ParamSpec::factors);
        let Some(size) = factors.find(|factor| factor.axis == Axis::Embed).map(|factor| factor.size) else {
            continue;
        };
        if part.embed_groups.is_empty() {
            groups.push(size);
        } else if part.embed_groups.iter().fold(0usize, |sum, group| sum.saturating_add(*group)) == size {
            groups.extend(part.embed_groups);
        } else {
            return Err(Error::ParentGroups {
                parent: who(index, part),
                groups: part.embed_groups.into(),
                size,
            });
        }
    }
    match normalisation {
        Normalisation::Property => Ok(groups),
        Normalisation::Rule if groups.is_empty() => Ok(groups),
        Normalisation::Rule => Ok(vec![groups.iter().fold(0, |sum, group| sum.saturating_add(*group))]),
    }
}

/// Plans one parameter; `specs` holds the parents' descriptions of it, in order, and is not empty.
fn fuse_param(
    parts: &[Part<'_>],
    specs: &[&ParamSpec],
    weights: &[f64],
    cross: Fill,
) -> Result<PlannedParam> {
    let Some((&first, _)) = specs.split_first() else { return Err(Error::NoParents) };
    for (index, (&spec, part)) in specs.iter().zip(parts).enumerate() {
        check_same_axes((0, &parts[0], first), (index, part, spec))?;
    }
    let fused_dims = first.dims.iter().filter(|dim| has_rule(dim, AxisRule::Fused)).count();
    if fused_dims == 0 && first.averaging == Averaging::None {
        return Err(Error::NothingFused { parameter: first.name.clone(), axes: axes(&first.dims) });
    }
    let scales = scales(specs, weights)?;

    let mut child: Vec<Factor> = first.factors().map(|factor| Factor { size: 0, ..factor }).collect();
    let (mut placements, mut absent) = (Vec::with_capacity(specs.len()), Vec::new());
    for (parent, (spec, (scale, weight))) in specs.iter().zip(scales.into_iter().zip(weights)).enumerate() {
        let scale = scale * spec.factor;
        let extent: Vec<usize> = spec.factors().map(|factor| factor.size).collect();
        let mut offset = Vec::with_capacity(extent.len());
        for (total, &size) in child.iter_mut().zip(&extent) {
            let fused = total.axis.rule() == AxisRule::Fused;
            offset.push(if fused { total.size } else { 0 });
            total.size = if fused { total.size.saturating_add(size) } else { total.size.max(size) };
        }
        let source = match &spec.origin {
            Origin::SameName => spec.name.clone(),
            Origin::Tensor(name) => name.clone(),
            Origin::Absent(value) => {
                absent.push(Absence { parent, offset, extent, value: value * scale });
                continue;
            }
        };
        // Every path from a part's features to the logits is weighted once for the average: in the part itself, or else
        // further on.
        let gradient = Some(weight / scale).filter(|gradient| gradient.is_finite());
        placements.push(Placement {
            parent,
            source,
            from: None,
            offset,
            extent,
            scale,
            noise: None,
            gradient,
        });
    }
    let mut sizes = child.into_iter();
    let dims = first.dims.iter().map(|dim| Dim { factors: sizes.by_ref().take(dim.factors.len()).collect() });
    let has_cross = fused_dims >= 2 && specs.len() >= 2;
    let fill = if has_cross { cross } else { Fill::Zero };
    let (name, dims, contracts) = (first.name.clone(), dims.collect(), first.contracts);
    Ok(PlannedParam { name, dims, placements, absent, fill, contracts })
}

/// Each part's factor for the average of the logits.
fn scales(specs: &[&ParamSpec], weights: &[f64]) -> Result<Vec<f64>> {
    let Some(first) = specs.first() else { return Ok(Vec::new()) };
    match first.averaging {
        Averaging::None => Ok(vec![1.0; specs.len()]),
        Averaging::Mean => Ok(weights.to_vec()),
        Averaging::MeanTied => {
            let embed = |spec: &&ParamSpec| {
                let mut sizes =
                    spec.factors().filter(|factor| factor.axis == Axis::Embed).map(|factor| factor.size);
                match (sizes.next(), sizes.next()) {
                    (Some(size), None) => Ok(size as f64),
                    _ => Err(Error::TiedWithoutEmbed { parameter: spec.name.clone() }),
                }
            };
            let sizes: Vec<f64> = specs.iter().map(embed).collect::<Result<_>>()?;
            let total: f64 = sizes.iter().sum();
            Ok(sizes.iter().zip(weights).map(|(size, weight)| weight * (total / size).sqrt()).collect())
        }
    }
}

fn check_same_axes(
    (first_index, first_part, first): (usize, &Part<'_>, &ParamSpec),
    (index, part, spec): (usize, &Part<'_>, &ParamSpec),
) -> Result<()> {
    let same_dims = first.dims.len() == spec.dims.len()
        && first.dims.iter().zip(&spec.dims).all(|(a, b)| {
            a.factors.len() == b.factors.len()
                && a.factors.iter().zip(&b.factors).all(|(a, b)| a.axis == b.axis)
        });
    let (parameter, first_name, other) = (spec.name.clone(), who(first_index, first_part), who(index, part));
    if !same_dims {
        let (first_axes, other_axes) = (axes(&first.dims), axes(&spec.dims));
        return Err(Error::AxesDiffer { parameter, first: first_name, first_axes, other, other_axes });
    }
    if first.averaging != spec.averaging || first.contracts != spec.contracts {
        return Err(Error::AveragingDiffers { parameter, first: first_name, other });
    }
    let shared = |(a, b): &(Factor, Factor)| a.axis.rule() == AxisRule::Shared && a.size != b.size;
    match first.factors().zip(spec.factors()).find(shared) {
        Some((a, b)) => Err(Error::SharedAxis {
            parameter,
            axis: a.axis,
            first: first_name,
            first_size: a.size,
            other,
            other_size: b.size,
        }),
        None => Ok(()),
    }
}

fn has_rule(dim: &Dim, rule: AxisRule) -> bool {
    dim.factors.iter().any(|factor| factor.axis.rule() == rule)
}

fn axes(dims: &[Dim]) -> String {
    let dim = |dim: &Dim| dim.factors.iter().map(|factor| factor.axis.name()).collect::<Vec<_>>().join(" · ");
    dims.iter().map(dim).collect::<Vec<_>>().join(", ")
}

fn who(index: usize, part: &Part<'_>) -> String {
    format!("parent {index} ({})", part.label)
}

fn missing(parameter: &str, present: (usize, &Part<'_>), missing: (usize, &Part<'_>)) -> Error {
    let (present, missing) = (who(present.0, present.1), who(missing.0, missing.1));
    Error::MissingParameter { parameter: parameter.into(), present, missing }
}
