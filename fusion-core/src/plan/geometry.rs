//! Where each line of a planned parameter gets its elements from. A line runs along the last dimension of the stored
//! tensor, for one index in each of the others.

use crate::plan::{Absence, Direction, Fill, Place, PlannedParam, shape};
use crate::table::Dim;

/// A run of elements along a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub child: usize,
    pub source: usize,
    pub len: usize,
}

/// A parent's place, in coordinates of the stored tensors.
pub(crate) struct PlacedPart {
    parent: usize,
    /// For each dimension but the last: the source's index for each of the child's.
    rows: Vec<Vec<Option<usize>>>,
    /// The source's shape.
    shape: Vec<usize>,
    /// The runs of the last dimension.
    pub segments: Vec<Segment>,
}

pub(crate) struct Geometry {
    /// The child's shape but for the last dimension.
    leading: Vec<usize>,
    /// Elements in a line.
    pub line: usize,
    /// The placements.
    pub parts: Vec<PlacedPart>,
    /// The places of absent parents.
    pub absent: Vec<PlacedPart>,
    /// For each dimension but the last: whether an index belongs to some parent.
    live_rows: Vec<Vec<bool>>,
    /// The runs of the last dimension that belong to some parent, as pairs of start and end.
    live: Vec<(usize, usize)>,
    /// Which cross-connections there are, and whether it is the last dimension that they read.
    direction: Direction,
    contracts_last: bool,
}

impl Geometry {
    /// For a parameter that passed validation.
    pub fn new(param: &PlannedParam) -> Self {
        let mut shape = param.shape();
        let line = shape.pop().unwrap_or(1);
        let dims = &param.dims;
        let placed = param.placements.iter().map(|placement| {
            let from = placement.from.as_ref().map(|from| from.offset.as_slice());
            PlacedPart::new(placement.parent, placement.place(), from, placement.source_sizes(), dims)
        });
        let absent =
            |absence: &Absence| PlacedPart::new(absence.parent, absence.place(), None, &absence.extent, dims);
        let parts: Vec<PlacedPart> = placed.collect();
        let absent: Vec<PlacedPart> = param.absent.iter().map(absent).collect();
        let all = || parts.iter().chain(&absent);
        let live_rows = (0..shape.len())
            .map(|d| {
                let belongs = |index: usize| all().any(|part| part.row(d, index).is_some());
                (0..shape.get(d).copied().unwrap_or(0)).map(belongs).collect()
            })
            .collect();
        let live = union(all().flat_map(|part| &part.segments));
        let direction = match param.fill {
            Fill::Zero => Direction::Both,
            Fill::Normal { direction, .. } => direction,
        };
        let contracts_last = param.contracts.is_some_and(|contracts| contracts + 1 == param.dims.len());
        Geometry { leading: shape, line, parts, absent, live_rows, live, direction, contracts_last }
    }

    /// Includes the cross-connections that the fill leaves at zero.
    pub fn with_all_cross(self) -> Self {
        Geometry { direction: Direction::Both, ..self }
    }

    /// The indices of a line in all dimensions but the last.
    pub fn row(&self, mut line: usize, row: &mut Vec<usize>) {
        row.clear();
        for &size in self.leading.iter().rev() {
            row.push(line % size);
            line /= size;
        }
        row.reverse();
    }

    /// The cross-connections of a line, as pairs of start and end: what belongs to a parent in every dimension but lies in
    /// no parent's place on this line.
    pub fn cross(&self, row: &[usize]) -> Vec<(usize, usize)> {
        let is_live = |(live, &index): (&Vec<bool>, &usize)| live.get(index).copied().unwrap_or(false);
        if !self.live_rows.iter().zip(row).all(is_live) {
            return Vec::new();
        }
        let all = || self.parts.iter().chain(&self.absent);
        let here = || all().filter(|part| part.line(row).is_some());
        let covered = union(here().flat_map(|part| &part.segments));
        let live = match self.direction {
            Direction::Both => &self.live,
            direction => {
                let connected = |there: &&PlacedPart| {
                    here().any(|here| match self.contracts_last {
                        true => direction.connects(there.parent, here.parent),
                        false => direction.connects(here.parent, there.parent),
                    })
                };
                // What is covered must lie within.
                &union(all().filter(connected).chain(here()).flat_map(|part| &part.segments))
            }
        };
        let mut gaps = Vec::new();
        let mut covered = covered.into_iter().peekable();
        for &(mut start, end) in live {
            // Covered runs lie within live ones, so each is met in its own.
            while let Some((first, last)) = covered.next_if(|run| run.0 < end) {
                if first > start {
                    gaps.push((start, first));
                }
                start = last;
            }
            if start < end {
                gaps.push((start, end));
            }
        }
        gaps
    }
}

impl PlacedPart {
    /// `from` is where the place begins in the source, whose axes have `sizes`.
    fn new(parent: usize, place: Place<'_>, from: Option<&[usize]>, sizes: &[usize], dims: &[Dim]) -> Self {
        let shape = shape(sizes, dims);
        let from = from.unwrap_or_default().iter().copied().chain(std::iter::repeat(0));
        let mut axes = place.ranges().zip(from).zip(sizes).map(|((range, from), size)| (range, from, *size));
        let mut rows: Vec<Vec<Option<usize>>> = dims
            .iter()
            .map(|dim| {
                let axes: Vec<_> = axes.by_ref().take(dim.factors.len()).collect();
                (0..dim.size()).map(|index| source_index(dim, &axes, index)).collect()
            })
            .collect();
        let segments = segments(&rows.pop().unwrap_or_default());
        PlacedPart { parent, rows, shape, segments }
    }

    fn row(&self, dim: usize, index: usize) -> Option<usize> {
        self.rows.get(dim)?.get(index).copied().flatten()
    }

    /// The first element of the source's line that belongs to a line of the child, if any.
    pub fn line(&self, row: &[usize]) -> Option<usize> {
        let mut line = 0;
        for (dim, (&index, size)) in row.iter().zip(&self.shape).enumerate() {
            line = line * size + self.row(dim, index)?;
        }
        Some(line * self.shape.last()?)
    }
}

/// The index in a source's dimension for an index of the child's, if it lies in the place. For each axis: the place's
/// range, where it begins in the source, and the source's size.
fn source_index(dim: &Dim, axes: &[((usize, usize), usize, usize)], mut index: usize) -> Option<usize> {
    let (mut source, mut stride) = (0, 1);
    for (factor, &((start, end), from, size)) in dim.factors.iter().zip(axes).rev() {
        let coordinate = index % factor.size;
        index /= factor.size;
        if coordinate < start || coordinate >= end {
            return None;
        }
        source += (coordinate - start + from) * stride;
        stride *= size;
    }
    Some(source)
}

/// The runs in which the child's and the source's indices advance together.
fn segments(sources: &[Option<usize>]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (child, source) in sources.iter().enumerate() {
        let Some(source) = *source else { continue };
        match segments.last_mut() {
            Some(run) if run.child + run.len == child && run.source + run.len == source => run.len += 1,
            _ => segments.push(Segment { child, source, len: 1 }),
        }
    }
    segments
}

/// The segments' runs in the child, sorted and merged.
fn union<'a>(segments: impl Iterator<Item = &'a Segment>) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = segments.map(|run| (run.child, run.child + run.len)).collect();
    runs.sort_unstable();
    let mut merged: Vec<(usize, usize)> = Vec::with_capacity(runs.len());
    for (start, end) in runs {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}
