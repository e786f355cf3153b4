//! Checks that a plan is sound.

use std::collections::HashSet;

use crate::plan::{Absence, Direction, Fill, FusionPlan, Place, Placement, PlannedParam, StandardDeviation};
use crate::table::{Axis, Dim, Factor, check_dims};
use crate::{Error, Result};

/// The part of a stored dimension that a parent occupies: the start and end along each axis.
type Span = Vec<(Axis, usize, usize)>;

impl FusionPlan {
    /// Checks everything that can be checked without the parents' files, also in a plan that was read from JSON: names are
    /// distinct, places lie within their parameter and leave no gap along any axis, placements are disjoint or average the
    /// same box, and the groups add up. Along every stored dimension, an absent parent must be as large as one of its
    /// tensors is elsewhere in the plan, so no dimension of the child exceeds what the parents' files account for.
    pub fn validate(&self) -> Result<()> {
        if self.parents.is_empty() {
            return Err(Error::NoParents);
        }
        let spans = self.placed_spans();
        let mut names = HashSet::with_capacity(self.params.len());
        for param in &self.params {
            if !names.insert(param.name.as_str()) {
                return Err(Error::DuplicateParameter { parameter: param.name.clone() });
            }
            check_dims(&param.name, &param.dims)?;
            self.check_placements(param)?;
            self.check_absent(param, &spans)?;
            check_coverage(param)?;
            check_overlap(param)?;
            check_contraction(param)?;
            check_fill(param)?;
            self.check_groups(param)?;
        }
        Ok(())
    }

    /// The dimensions of all placed tensors, by parent. Empty if no parent is absent anywhere.
    fn placed_spans(&self) -> HashSet<(usize, Span)> {
        if self.params.iter().all(|param| param.absent.is_empty()) {
            return HashSet::new();
        }
        let placements =
            self.params.iter().flat_map(|param| param.placements.iter().map(move |p| (param, p)));
        placements
            .flat_map(|(param, p)| spans_of(&param.dims, p.place()).map(move |s| (p.parent, s)))
            .collect()
    }

    fn check_placements(&self, param: &PlannedParam) -> Result<()> {
        if param.placements.is_empty() && param.absent.is_empty() {
            return Err(Error::NothingPlaced { parameter: param.name.clone() });
        }
        for placement in &param.placements {
            let Placement { parent, scale, .. } = placement;
            self.check_place(param, *parent, placement.place())?;
            if !scale.is_finite() {
                return Err(Error::Scale { parameter: param.name.clone(), parent: *parent, scale: *scale });
            }
            check_source_box(param, placement)?;
            if let Some(noise) = placement.noise {
                check_deviation(noise.std)?;
                if !noise.factor.is_finite() {
                    let (parameter, factor) = (param.name.clone(), noise.factor);
                    return Err(Error::NoiseFactor { parameter, parent: *parent, factor });
                }
            }
        }
        Ok(())
    }

    fn check_absent(&self, param: &PlannedParam, spans: &HashSet<(usize, Span)>) -> Result<()> {
        for (index, absence) in param.absent.iter().enumerate() {
            let (parameter, place) = (|| param.name.clone(), absence.place());
            let Absence { parent, value, .. } = *absence;
            self.check_place(param, parent, place)?;
            if !value.is_finite() {
                return Err(Error::AbsentValue { parameter: parameter(), parent, value });
            }
            let unknown = |span: &Span| !spans.contains(&(parent, span.clone()));
            if let Some(span) = spans_of(&param.dims, place).find(unknown) {
                let axes = span.iter().map(|(axis, start, end)| format!("{start}..{end} of axis {axis}"));
                let place = axes.collect::<Vec<_>>().join(" · ");
                return Err(Error::AbsentSize { parameter: parameter(), parent, place });
            }
            let others = param.placements.iter().map(|other| (other.parent, other.place()));
            let later = param.absent.iter().skip(index + 1).map(|other| (other.parent, other.place()));
            if let Some((other, _)) = others.chain(later).find(|(_, other)| place.overlaps(*other)) {
                return Err(Error::AbsentOverlap { parameter: parameter(), parent, other });
            }
        }
        Ok(())
    }

    fn check_place(&self, param: &PlannedParam, parent: usize, place: Place<'_>) -> Result<()> {
        let factors: Vec<Factor> = param.factors().collect();
        let parameter = || param.name.clone();
        if parent >= self.parents.len() {
            let parents = self.parents.len();
            return Err(Error::NoSuchParent { parameter: parameter(), parent, parents });
        }
        let (offset, extent, axes) = (place.offset.len(), place.extent.len(), factors.len());
        if offset != axes || extent != axes {
            return Err(Error::PlacementRank { parameter: parameter(), parent, offset, extent, axes });
        }
        for (factor, (start, end)) in factors.iter().zip(place.ranges()) {
            if end > factor.size || start == end {
                let (axis, size) = (factor.axis, factor.size);
                return Err(Error::OutOfBounds { parameter: parameter(), parent, axis, start, end, size });
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
}

/// A source box must lie within its tensor, all of which can be addressed.
fn check_source_box(param: &PlannedParam, placement: &Placement) -> Result<()> {
    let Placement { parent, from: Some(from), extent, .. } = placement else { return Ok(()) };
    let (parameter, parent) = (|| param.name.clone(), *parent);
    let (offset, sizes, axes) = (from.offset.len(), from.sizes.len(), extent.len());
    if offset != axes || sizes != axes {
        return Err(Error::SourceRank { parameter: parameter(), parent, offset, sizes, axes });
    }
    let boxes = param.factors().zip(from.offset.iter().zip(extent)).zip(&from.sizes);
    for ((Factor { axis, .. }, (&start, extent)), &size) in boxes {
        let end = start.saturating_add(*extent);
        if end > size {
            return Err(Error::OutOfSource { parameter: parameter(), parent, axis, start, end, size });
        }
    }
    let mut sizes = from.sizes.iter().copied();
    let source = param.dims.iter().map(|dim| {
        let factors = dim.factors.iter().zip(sizes.by_ref());
        Dim { factors: factors.map(|(factor, size)| Factor { size, ..*factor }).collect() }
    });
    check_dims(&param.name, &source.collect::<Vec<_>>())
}

/// A place's extent along each stored dimension.
fn spans_of(dims: &[Dim], place: Place<'_>) -> impl Iterator<Item = Span> {
    let mut ranges = place.ranges();
    dims.iter().map(move |dim| {
        dim.factors
            .iter()
            .zip(ranges.by_ref())
            .map(|(factor, (start, end))| (factor.axis, start, end))
            .collect()
    })
}

/// Every index of every axis must belong to some parent.
fn check_coverage(param: &PlannedParam) -> Result<()> {
    let placed = param.placements.iter().map(Placement::place);
    let places: Vec<Place<'_>> = placed.chain(param.absent.iter().map(Absence::place)).collect();
    for (index, Factor { axis, size }) in param.factors().enumerate() {
        let mut ranges: Vec<_> = places.iter().filter_map(|place| place.ranges().nth(index)).collect();
        ranges.sort_unstable();
        ranges.push((size, size));
        let mut covered = 0;
        for (start, end) in ranges {
            if start > covered {
                return Err(Error::Uncovered { parameter: param.name.clone(), axis, covered, start });
            }
            covered = covered.max(end);
        }
    }
    Ok(())
}

/// Placements that share elements must form an average: of the same box, with scales that add up to 1.
fn check_overlap(param: &PlannedParam) -> Result<()> {
    for (i, a) in param.placements.iter().enumerate() {
        let mut total = a.scale;
        for (j, b) in param.placements.iter().enumerate() {
            if i == j || !a.place().overlaps(b.place()) {
                continue;
            }
            if a.place() != b.place() {
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

fn check_contraction(param: &PlannedParam) -> Result<()> {
    let dimensions = param.dims.len();
    match param.contracts {
        Some(contracts) if contracts >= dimensions => {
            Err(Error::Contraction { parameter: param.name.clone(), contracts, dimensions })
        }
        _ => Ok(()),
    }
}

fn check_fill(param: &PlannedParam) -> Result<()> {
    let Fill::Normal { std, direction, .. } = param.fill else { return Ok(()) };
    check_deviation(std)?;
    if param.fused_dims() < 2 {
        return Err(Error::NoCrossConnections { parameter: param.name.clone() });
    }
    if direction != Direction::Both && (param.contracts.is_none() || param.dims.len() != 2) {
        return Err(Error::NoDirection { parameter: param.name.clone() });
    }
    Ok(())
}

fn check_deviation(std: StandardDeviation) -> Result<()> {
    let (StandardDeviation::Absolute(std) | StandardDeviation::Relative(std)) = std;
    if std.is_finite() && std > 0.0 { Ok(()) } else { Err(Error::Deviation { std }) }
}
