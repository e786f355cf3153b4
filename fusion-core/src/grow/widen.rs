//! Widens one model by copying its features: the algebra of Net2WiderNet (Chen, Goodfellow, Shlens, arXiv 1511.05641),
//! bert2BERT (arXiv 2110.07143), HyperCloning (arXiv 2409.12903) and LEMON (arXiv 2310.07999). A weight that produces a
//! feature produces its copies, too; a weight that sums over the feature takes each copy with a share, and the shares add
//! up to one. So no sum changes.

use std::ops::Range;

use super::Part;
use crate::plan::{
    Fill, FusionPlan, Noise, Normalisation, Placement, PlanParent, PlannedParam, SourceBox, StandardDeviation,
};
use crate::random::Philox;
use crate::table::{Averaging, Axis, Dim, Factor, ParamSpec};
use crate::{Error, Result};

/// How an axis grows: the ranges of the parent's features that follow one another in the child. Every feature must be in
/// at least one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widening {
    /// The axis that grows.
    pub axis: Axis,
    /// The ranges of features.
    pub features: Vec<Range<usize>>,
}

/// The shares of a feature's copies in the sums over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shares {
    /// `1/k` for each of `k` copies. Without noise, nothing tells the copies apart in training.
    Equal,
    /// Random shares that differ at most by a factor of three, different in each parameter (LEMON). They tell the copies
    /// apart in training.
    Unequal {
        /// The seed of the shares.
        seed: u64,
    },
}

/// The options of a widening.
#[derive(Clone, Debug, PartialEq)]
pub struct Widen {
    /// The axes that grow.
    pub axes: Vec<Widening>,
    /// How sums over copied features share them.
    pub shares: Shares,
    /// The standard deviation and seed of noise that cancels between pairs of copies: it tells them apart and changes no
    /// prediction.
    pub noise: Option<(StandardDeviation, u64)>,
}

/// Plans a widening. The sum over `Embed` in a tied head, which the table does not show, is accounted for where the table
/// averages the logits. `Embed` grows by [whole copies](whole_copies) only: the normalisation takes a mean over it, in
/// which every feature must keep its weight.
pub fn widen(parent: &Part<'_>, options: &Widen) -> Result<FusionPlan> {
    let axes =
        options.axes.iter().map(|widening| Copies::new(widening, parent)).collect::<Result<Vec<_>>>()?;
    let params = parent.table.iter().map(|spec| widen_param(spec, &axes, options)).collect::<Result<_>>()?;
    let embed_groups = embed_groups(parent, &axes);
    let grouped = embed_groups.len() > 1;
    let plan = FusionPlan {
        method: "widen".into(),
        parents: vec![PlanParent { label: parent.label.into(), blake3: parent.blake3.map(String::from) }],
        normalisation: if grouped { Normalisation::Property } else { Normalisation::Rule },
        embed_groups,
        params,
    };
    plan.validate()?;
    Ok(plan)
}

/// One group if the parent has one: the mean of the squares over whole copies equals that over a single copy.
fn embed_groups(parent: &Part<'_>, axes: &[Copies]) -> Vec<usize> {
    let growing = axes.iter().find(|copies| copies.axis == Axis::Embed);
    let times = growing.map_or(1, |copies| copies.child / copies.parent);
    match parent.embed_groups {
        [] | [_] => {
            let mut factors = parent.table.iter().flat_map(ParamSpec::factors);
            let embed = factors.find(|factor| factor.axis == Axis::Embed);
            embed.into_iter().map(|factor| factor.size * times).collect()
        }
        groups => groups.repeat(times),
    }
}

/// All features of an axis, `times` times.
pub fn whole_copies(axis: Axis, size: usize, times: usize) -> Widening {
    Widening { axis, features: vec![0..size; times] }
}

/// Copies the features of an axis up to a larger size: all of them as often as they fit, and for the rest a range that
/// starts at a random feature, a function of the seed. The order of features has no meaning.
pub fn copies_up_to(axis: Axis, size: usize, child: usize, seed: u64) -> Widening {
    let mut features = vec![0..size; (child / size.max(1)).max(1)];
    let rest = child.saturating_sub(features.len() * size);
    if rest > 0 {
        let draw = Philox::new(seed, &format!("copies of {axis}")).uniform(0);
        let start = ((f64::from(draw) * size as f64) as usize).min(size - 1);
        let first = rest.min(size - start);
        features.push(start..start + first);
        features.extend((first < rest).then(|| 0..rest - first));
    }
    Widening { axis, features }
}

/// An axis that grows, cut wherever a range begins or ends, so that two pieces hold either the same features or different
/// ones.
struct Copies {
    axis: Axis,
    parent: usize,
    child: usize,
    pieces: Vec<Piece>,
}

/// A run of features in the child.
#[derive(Clone)]
struct Piece {
    child: usize,
    source: Range<usize>,
    /// Which copy of these features this is, and of how many.
    copy: usize,
    copies: usize,
}

impl Copies {
    fn new(widening: &Widening, parent: &Part<'_>) -> Result<Self> {
        let axis = widening.axis;
        let mut sizes = parent.table.iter().flat_map(ParamSpec::factors).filter(|factor| factor.axis == axis);
        let size = sizes.next().map(|factor| factor.size).ok_or(Error::NoSuchAxis { axis })?;
        let mut cuts: Vec<usize> =
            widening.features.iter().flat_map(|range| [range.start, range.end]).collect();
        cuts.extend([0, size]);
        cuts.sort_unstable();
        cuts.dedup();
        let mut pieces: Vec<Piece> = Vec::new();
        let mut child = 0;
        for range in &widening.features {
            if range.is_empty() || range.end > size {
                return Err(Error::Features { axis, start: range.start, end: range.end, size });
            }
            for cut in cuts.windows(2).filter(|cut| range.start <= cut[0] && cut[1] <= range.end) {
                let source = cut[0]..cut[1];
                let copy = pieces.iter().filter(|piece| piece.source == source).count();
                pieces.push(Piece { child, source: source.clone(), copy, copies: 0 });
                child += source.len();
            }
        }
        for at in 0..pieces.len() {
            pieces[at].copies = pieces.iter().filter(|piece| piece.source == pieces[at].source).count();
        }
        let lost = cuts.windows(2).find(|cut| !pieces.iter().any(|piece| piece.source.start == cut[0]));
        if let Some(lost) = lost {
            return Err(Error::FeaturesLost { axis, start: lost[0], end: lost[1] });
        }
        if axis == Axis::Embed && widening.features.iter().any(|range| *range != (0..size)) {
            return Err(Error::UnequalCopies { axis, parent: size, child });
        }
        Ok(Copies { axis, parent: size, child, pieces })
    }
}

/// The most placements of a parameter, each of which is compared with every other.
const MAX_PLACES: usize = 1 << 10;

/// A piece of one axis of a parameter, and whether sums run over that axis.
#[derive(Clone)]
struct Chosen {
    piece: Piece,
    summed: bool,
}

fn widen_param(spec: &ParamSpec, axes: &[Copies], options: &Widen) -> Result<PlannedParam> {
    let grown = |factor: &Factor| axes.iter().find(|copies| copies.axis == factor.axis);
    let size = |factor: &Factor| grown(factor).map_or(factor.size, |copies| copies.child);
    let dims = spec.dims.iter().map(|dim| Dim {
        factors: dim.factors.iter().map(|factor| Factor { size: size(factor), ..*factor }).collect(),
    });
    let pieces = spec.dims.iter().enumerate().flat_map(|(dimension, dim)| {
        dim.factors.iter().map(move |factor| {
            let summed = spec.contracts == Some(dimension)
                || (spec.averaging != Averaging::None && factor.axis == Axis::Embed);
            let whole = Piece { child: 0, source: 0..factor.size, copy: 0, copies: 1 };
            let pieces = grown(factor).map_or_else(|| vec![whole], |copies| copies.pieces.clone());
            pieces.into_iter().map(|piece| Chosen { piece, summed }).collect()
        })
    });
    let pieces: Vec<Vec<Chosen>> = pieces.collect();
    let places = pieces.iter().fold(1usize, |product, axis| product.saturating_mul(axis.len()));
    if places > MAX_PLACES {
        return Err(Error::TooManyCopies { parameter: spec.name.clone(), places, most: MAX_PLACES });
    }
    // T5's logits are scaled by `d_model^-1/2` if this is so; see `Averaging`.
    let root = match (spec.averaging, axes.iter().find(|copies| copies.axis == Axis::Embed)) {
        (Averaging::MeanTied, Some(copies)) => (copies.child as f64 / copies.parent as f64).sqrt(),
        _ => 1.0,
    };
    let placements = boxes(&pieces).into_iter().map(|chosen| {
        let share: f64 =
            chosen.iter().filter(|at| at.summed).map(|at| share(spec, &at.piece, options.shares)).product();
        let produced: f64 =
            chosen.iter().filter(|at| !at.summed).map(|at| 1.0 / at.piece.copies as f64).product();
        let from = SourceBox {
            offset: chosen.iter().map(|at| at.piece.source.start).collect(),
            sizes: spec.factors().map(|factor| factor.size).collect(),
        };
        let whole = chosen.iter().zip(&from.sizes).all(|(at, size)| at.piece.source == (0..*size));
        Placement {
            parent: 0,
            source: spec.name.clone(),
            from: (!whole).then_some(from),
            offset: chosen.iter().map(|at| at.piece.child).collect(),
            extent: chosen.iter().map(|at| at.piece.source.len()).collect(),
            scale: share * root,
            noise: noise(spec, &chosen, options),
            // The copies of what is produced share its gradient as the sums over them share its values; unequal shares
            // differ from sum to sum.
            gradient: (options.shares == Shares::Equal).then_some(produced / root),
        }
    });
    let (name, contracts, placements) = (spec.name.clone(), spec.contracts, placements.collect());
    Ok(PlannedParam {
        name,
        dims: dims.collect(),
        placements,
        absent: Vec::new(),
        fill: Fill::Zero,
        contracts,
    })
}

/// Every combination of one piece of each axis.
fn boxes(pieces: &[Vec<Chosen>]) -> Vec<Vec<Chosen>> {
    pieces.iter().fold(vec![Vec::new()], |boxes, axis| {
        let with = |chosen: Vec<Chosen>| {
            axis.iter().map(move |piece| chosen.iter().chain([piece]).cloned().collect()).collect::<Vec<_>>()
        };
        boxes.into_iter().flat_map(with).collect()
    })
}

/// A copy's share in the sums over it.
fn share(spec: &ParamSpec, piece: &Piece, shares: Shares) -> f64 {
    match shares {
        Shares::Equal => 1.0 / piece.copies as f64,
        Shares::Unequal { seed } => {
            let stream = Philox::new(seed, &format!("{} shares {}", spec.name, piece.source.start));
            let weight = |copy: usize| 0.5 + f64::from(stream.uniform(copy as u64));
            weight(piece.copy) / (0..piece.copies).map(weight).sum::<f64>()
        }
    }
}

/// Copies 0 and 1 of what is summed over get the same draws with opposite signs, as do 2 and 3, and so on. Each copy of
/// what is produced gets draws of its own.
fn noise(spec: &ParamSpec, chosen: &[Chosen], options: &Widen) -> Option<Noise> {
    let (std, seed) = options.noise?;
    spec.contracts?;
    let summed = chosen.iter().find(|at| at.summed && at.piece.copies > 1).map(|at| &at.piece)?;
    if summed.copy ^ 1 >= summed.copies {
        return None;
    }
    let produced = chosen.iter().filter(|at| !at.summed);
    let produced = produced.fold(0, |index, at| index * at.piece.copies + at.piece.copy);
    let pair = produced * (summed.copies / 2) + summed.copy / 2;
    Some(Noise { std, seed, pair: pair as u64, factor: if summed.copy % 2 == 0 { 1.0 } else { -1.0 } })
}
