//! Produces the elements of a planned parameter, any range of them on its own.

use std::ops::Range;

use rayon::prelude::*;
use safetensors::tensor::TensorView;

use crate::plan::geometry::{Geometry, Segment};
use crate::plan::{Fill, Noise, PlannedParam, StandardDeviation};
use crate::random::Philox;
use crate::tensor::{Element, float_size, to_f32, with_element};
use crate::{Dtype, Error, Result};

/// Everything needed to produce a parameter, prepared once.
pub(crate) struct Production<'a> {
    pub dtype: Dtype,
    param: &'a PlannedParam,
    /// The placements' sources.
    views: Vec<TensorView<'a>>,
    geometry: Geometry,
    /// Whether placements share elements.
    overlap: bool,
    /// The standard deviation and the draws of normal cross-connections.
    normal: Option<(f64, Philox)>,
    /// For each placement, the factor of its noise, and the draws, which are indexed by the source's elements.
    noises: Vec<Option<(f64, Philox)>>,
}

/// Buffers that are reused from line to line.
#[derive(Default)]
struct Scratch {
    row: Vec<usize>,
    sums: Vec<f64>,
}

impl<'a> Production<'a> {
    /// `views` are the placements' sources.
    pub fn new(param: &'a PlannedParam, views: Vec<TensorView<'a>>, dtype: Dtype) -> Self {
        let normal = match param.fill {
            Fill::Zero => None,
            Fill::Normal { std, seed, .. } => {
                Some((absolute(std, param, &views), Philox::new(seed, &param.name)))
            }
        };
        Production {
            dtype,
            param,
            geometry: Geometry::new(param),
            overlap: param.has_overlap(),
            normal,
            noises: noises(param, &views),
            views,
        }
    }

    /// Fills a buffer with the parameter's bytes from `start` on; both are multiples of the element's size.
    pub fn fill(&self, start: usize, out: &mut [u8]) -> Result<()> {
        with_element!(self.dtype, T => self.fill_elements::<T>(start / T::SIZE, out), _ => Ok(()))
    }

    fn fill_elements<T: Element>(&self, mut element: usize, mut out: &mut [u8]) -> Result<()> {
        let line = self.geometry.line;
        let mut scratch = Scratch::default();
        out.fill(0);
        while !out.is_empty() {
            let first = element % line;
            let last = line.min(first + out.len() / T::SIZE);
            let (here, rest) = out.split_at_mut((last - first) * T::SIZE);
            self.fill_line::<T>(element / line, first..last, here, &mut scratch)?;
            element += last - first;
            out = rest;
        }
        Ok(())
    }

    /// Fills a range of a line, which holds zeros.
    fn fill_line<T: Element>(
        &self,
        line: usize,
        range: Range<usize>,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.geometry.row(line, &mut scratch.row);
        self.place::<T>(&scratch.row, &range, out, &mut scratch.sums)?;
        self.fill_rest::<T>(line, &range, out, scratch)
    }

    /// Fills what no placement covers in a range of a line, whose row is known.
    fn fill_rest<T: Element>(
        &self,
        line: usize,
        range: &Range<usize>,
        out: &mut [u8],
        Scratch { row, sums }: &mut Scratch,
    ) -> Result<()> {
        for (part, absence) in self.geometry.absent.iter().zip(&self.param.absent) {
            if absence.value == 0.0 || part.line(row).is_none() {
                continue;
            }
            for run in part.segments.iter().filter_map(|run| within(run, range)) {
                sums.clear();
                sums.resize(run.len, absence.value);
                self.encode::<T>(sums, &mut out[run.child * T::SIZE..])?;
            }
        }
        if let Some((std, stream)) = self.normal {
            for (start, end) in self.geometry.cross(row) {
                let (start, end) = (start.max(range.start), end.min(range.end));
                if start < end {
                    let draws = stream.normals((line * self.geometry.line + start) as u64);
                    sums.clear();
                    sums.extend(draws.take(end - start).map(|draw| std * draw));
                    self.encode::<T>(sums, &mut out[(start - range.start) * T::SIZE..])?;
                }
            }
        }
        Ok(())
    }

    pub fn param(&self) -> &'a PlannedParam {
        self.param
    }

    /// Whether there is anything but zero outside the placements.
    pub fn has_rest(&self) -> bool {
        self.normal.is_some() || self.param.absent.iter().any(|absence| absence.value != 0.0)
    }

    /// The parameter without its placements.
    pub fn rest(&self) -> Result<Vec<f32>> {
        let line = self.geometry.line;
        let mut bytes = vec![0; self.param.elements() * f32::SIZE];
        let lines = bytes.par_chunks_mut(line * f32::SIZE).enumerate();
        lines.try_for_each_init(Scratch::default, |scratch, (index, out)| {
            self.geometry.row(index, &mut scratch.row);
            self.fill_rest::<f32>(index, &(0..line), out, scratch)
        })?;
        Ok(to_f32(Dtype::F32, &bytes))
    }

    /// The values of a placement's source.
    pub fn source(&self, placement: usize) -> Vec<f32> {
        self.views.get(placement).map(|view| to_f32(view.dtype(), view.data())).unwrap_or_default()
    }

    /// The noise of a placement, for its whole source.
    pub fn noise(&self, placement: usize) -> Option<Vec<f32>> {
        let (std, stream) = self.noises.get(placement)?.as_ref()?;
        let elements = self.views.get(placement)?.shape().iter().product();
        Some(stream.normals(0).take(elements).map(|draw| (std * draw) as f32).collect())
    }

    /// Rounds all elements to the parameter's type.
    pub fn encode_all(&self, values: &[f32]) -> Result<Vec<u8>> {
        let mut bytes = vec![0; values.len() * float_size(&self.param.name, self.dtype)?];
        let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
        with_element!(self.dtype, T => self.encode::<T>(&values, &mut bytes), _ => Ok(()))?;
        Ok(bytes)
    }

    /// Fills a range of a line with what the placements contribute: copies, or sums and products that are rounded once.
    fn place<T: Element>(
        &self,
        row: &[usize],
        range: &Range<usize>,
        out: &mut [u8],
        sums: &mut Vec<f64>,
    ) -> Result<()> {
        sums.clear();
        let placements = self.geometry.parts.iter().zip(&self.views).zip(&self.param.placements);
        for (((part, view), placement), noise) in placements.zip(&self.noises) {
            let Some(first) = part.line(row) else { continue };
            let is_plain = placement.scale == 1.0 && noise.is_none() && !self.overlap;
            let is_copy = is_plain && view.dtype() == self.dtype;
            for run in part.segments.iter().filter_map(|run| within(run, range)) {
                if is_copy {
                    let source = slice(view.data(), first + run.source, run.len, T::SIZE);
                    out[run.child * T::SIZE..][..source.len()].copy_from_slice(source);
                    continue;
                }
                sums.resize(range.len(), 0.0);
                let sums = &mut sums[run.child..][..run.len];
                with_element!(view.dtype(), S => {
                    let source = slice(view.data(), first + run.source, run.len, S::SIZE);
                    for (sum, value) in sums.iter_mut().zip(source.chunks_exact(S::SIZE)) {
                        *sum += S::read(value).to_f64() * placement.scale;
                    }
                }, _ => ());
                if let Some((std, stream)) = noise {
                    let draws = stream.normals((first + run.source) as u64);
                    sums.iter_mut().zip(draws).for_each(|(sum, draw)| *sum += std * draw);
                }
                if !self.overlap {
                    self.encode::<T>(sums, &mut out[run.child * T::SIZE..])?;
                }
            }
        }
        if self.overlap && !sums.is_empty() {
            self.encode::<T>(sums, out)?;
        }
        Ok(())
    }

    /// Rounds values to the parameter's type. Finite values must stay finite.
    fn encode<T: Element>(&self, values: &[f64], out: &mut [u8]) -> Result<()> {
        let overflows = |value: f64| value.is_finite() && !T::from_f64(value).to_f64().is_finite();
        let mut fits = true;
        for (&value, out) in values.iter().zip(out.chunks_exact_mut(T::SIZE)) {
            fits &= !overflows(value);
            T::from_f64(value).write(out);
        }
        match values.iter().find(|value| !fits && overflows(**value)) {
            Some(&value) => {
                Err(Error::DoesNotFit { parameter: self.param.name.clone(), value, dtype: self.dtype })
            }
            None => Ok(()),
        }
    }
}

/// The part of a run that lies in a range of its line; the child's index is relative to the start of the range.
fn within(run: &Segment, range: &Range<usize>) -> Option<Segment> {
    let (start, end) = (run.child.max(range.start), (run.child + run.len).min(range.end));
    let len = end.checked_sub(start).filter(|len| *len > 0)?;
    Some(Segment { child: start - range.start, source: run.source + start - run.child, len })
}

/// A run of elements, as bytes.
fn slice(bytes: &[u8], first: usize, len: usize, size: usize) -> &[u8] {
    &bytes[first * size..][..len * size]
}

/// The number of elements that are summed at a time.
const CHUNK: usize = 1 << 16;

/// A standard deviation in the units of the parameter.
fn absolute(std: StandardDeviation, param: &PlannedParam, views: &[TensorView<'_>]) -> f64 {
    match std {
        StandardDeviation::Absolute(std) => std,
        StandardDeviation::Relative(share) => share * root_mean_square(param, views),
    }
}

fn noises(param: &PlannedParam, views: &[TensorView<'_>]) -> Vec<Option<(f64, Philox)>> {
    let mut known: Option<(StandardDeviation, f64)> = None;
    let mut deviation = |std| match known {
        Some((of, deviation)) if of == std => deviation,
        _ => known.insert((std, absolute(std, param, views))).1,
    };
    let mut noise = |noise: &Noise| {
        let stream = Philox::new(noise.seed, &format!("{} noise {}", param.name, noise.pair));
        (noise.factor * deviation(noise.std), stream)
    };
    param.placements.iter().map(|placement| placement.noise.as_ref().map(&mut noise)).collect()
}

/// The root mean square, about zero, of the scaled values of all tensors that are placed in a parameter. Summed in fixed
/// chunks, so that it does not depend on the number of threads.
fn root_mean_square(param: &PlannedParam, views: &[TensorView<'_>]) -> f64 {
    let mut sums: Vec<((usize, &str), f64)> = Vec::new();
    let (mut sum, mut count) = (0.0, 0);
    for (placement, view) in param.placements.iter().zip(views) {
        let source = (placement.parent, placement.source.as_str());
        let squares = match sums.iter().find(|(known, _)| *known == source) {
            Some((_, squares)) => *squares,
            None => {
                let squares = sum_of_squares(view);
                sums.push((source, squares));
                squares
            }
        };
        sum += squares * placement.scale.powi(2);
        count += view.shape().iter().product::<usize>();
    }
    (sum / count.max(1) as f64).sqrt()
}

fn sum_of_squares(view: &TensorView<'_>) -> f64 {
    with_element!(view.dtype(), S => {
        let chunks = view.data().par_chunks(CHUNK * S::SIZE);
        let squares = |chunk: &[u8]| -> f64 {
            chunk.chunks_exact(S::SIZE).map(|value| S::read(value).to_f64().powi(2)).sum()
        };
        chunks.map(squares).collect::<Vec<f64>>().into_iter().sum()
    }, _ => 0.0)
}
