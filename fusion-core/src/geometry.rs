//! Where each line of a planned parameter gets its elements from. A line is the last dimension of the stored tensor
//! for one index of every other dimension.

use crate::Dim;
use crate::plan::{Absence, Place, Placement, PlannedParam};

/// A run of elements along a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub child: usize,
    pub source: usize,
    pub len: usize,
}

/// A parent's place in coordinates of the stored tensors.
pub(crate) struct PlacedPart {
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
    /// The runs of the last dimension that belong to some parent, as (start, end).
    live: Vec<(usize, usize)>,
}

impl Geometry {
    /// For a parameter that passed validation.
    pub fn new(param: &PlannedParam) -> Self {
        let mut shape = param.shape();
        let line = shape.pop().unwrap_or(1);
        let placed = |place| PlacedPart::new(place, &param.dims);
        let parts: Vec<PlacedPart> = param.placements.iter().map(Placement::place).map(placed).collect();
        let absent: Vec<PlacedPart> = param.absent.iter().map(Absence::place).map(placed).collect();
        let all = || parts.iter().chain(&absent);
        let live_rows = (0..shape.len())
            .map(|d| {
                let belongs = |index: usize| all().any(|part| part.row(d, index).is_some());
                (0..shape.get(d).copied().unwrap_or(0)).map(belongs).collect()
            })
            .collect();
        let live = union(all().flat_map(|part| &part.segments));
        Geometry { leading: shape, line, parts, absent, live_rows, live }
    }

    pub fn lines(&self) -> usize {
        self.leading.iter().product()
    }

    /// The indices of a line in the dimensions but the last.
    pub fn row(&self, mut line: usize, row: &mut Vec<usize>) {
        row.clear();
        for &size in self.leading.iter().rev() {
            row.push(line % size);
            line /= size;
        }
        row.reverse();
    }

    /// The cross-connections of a line as (start, end): what belongs to a parent in every dimension, and is not in any
    /// parent's place on this line.
    pub fn cross(&self, row: &[usize]) -> Vec<(usize, usize)> {
        let is_live = |(live, &index): (&Vec<bool>, &usize)| live.get(index).copied().unwrap_or(false);
        if !self.live_rows.iter().zip(row).all(is_live) {
            return Vec::new();
        }
        let here = self.parts.iter().chain(&self.absent).filter(|part| part.line(row).is_some());
        let covered = union(here.flat_map(|part| &part.segments));
        let mut gaps = Vec::new();
        let mut covered = covered.into_iter().peekable();
        for &(mut start, end) in &self.live {
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
    fn new(place: Place<'_>, dims: &[Dim]) -> Self {
        let mut ranges = place.ranges();
        let mut rows: Vec<Vec<Option<usize>>> = dims
            .iter()
            .map(|dim| {
                let ranges: Vec<(usize, usize)> = ranges.by_ref().take(dim.factors.len()).collect();
                (0..dim.size()).map(|index| source_index(dim, &ranges, index)).collect()
            })
            .collect();
        let segments = segments(&rows.pop().unwrap_or_default());
        PlacedPart { rows, shape: place.shape(dims), segments }
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

/// The index in a source's dimension for an index of the child's, if it lies in the place.
fn source_index(dim: &Dim, ranges: &[(usize, usize)], mut index: usize) -> Option<usize> {
    let (mut source, mut stride) = (0, 1);
    for (factor, &(start, end)) in dim.factors.iter().zip(ranges).rev() {
        let coordinate = index % factor.size;
        index /= factor.size;
        if coordinate < start || coordinate >= end {
            return None;
        }
        source += (coordinate - start) * stride;
        stride *= end - start;
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
