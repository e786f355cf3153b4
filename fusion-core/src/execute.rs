//! Executes a plan on the host: parents in, one tensor of the child at a time out.

use std::path::Path;

use rayon::prelude::*;
use safetensors::tensor::TensorView;

use crate::checkpoint::{LazyTensor, write_weights};
use crate::geometry::Geometry;
use crate::plan::{Fill, FusionPlan, Noise, PlannedParam, StandardDeviation};
use crate::tensor::{Element, float_size, to_f32, with_element};
use crate::{Dtype, Error, HostTensor, HostTensors, Philox, Result, TensorSource};

/// A plan that was checked against its parents and can be executed. The result depends neither on the order in
/// which parameters are produced nor on the number of threads.
pub struct Executor<'a> {
    plan: &'a FusionPlan,
    sources: &'a [&'a dyn TensorSource],
    dtype: Option<Dtype>,
}

/// A tensor of the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FusedTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Little-endian, row-major.
    pub bytes: Vec<u8>,
}

impl<'a> Executor<'a> {
    /// Validates the plan and compares it with the headers of `sources`, one for each parent; reads no values.
    pub fn new(plan: &'a FusionPlan, sources: &'a [&'a dyn TensorSource]) -> Result<Self> {
        plan.validate()?;
        plan.check_sources(sources)?;
        Ok(Executor { plan, sources, dtype: None })
    }

    /// The same with a type for all tensors of the child. Otherwise each has the type of its first placement's
    /// source.
    pub fn output_dtype(self, dtype: Dtype) -> Result<Self> {
        float_size("the output", dtype)?;
        Ok(Executor { dtype: Some(dtype), ..self })
    }

    /// Produces the parameter at an index of [`FusionPlan::params`]. Fails if a finite value is too large for the
    /// output type.
    pub fn param(&self, index: usize) -> Result<FusedTensor> {
        let param = self.planned(index)?;
        let dtype = self.param_dtype(param)?;
        let views = param
            .placements
            .iter()
            .map(|placement| self.source(placement.parent)?.view(&placement.source))
            .collect::<Result<Vec<_>>>()?;
        let bytes = with_element!(dtype, T => produce::<T>(param, &views, dtype)?, _ => Vec::new());
        Ok(FusedTensor { dtype, shape: param.shape(), bytes })
    }

    /// The whole child in memory, as f32.
    pub fn in_memory(&self) -> Result<HostTensors> {
        let tensor = |(index, param): (usize, &PlannedParam)| {
            let FusedTensor { dtype, shape, bytes } = self.param(index)?;
            Ok((param.name.clone(), HostTensor { shape, data: to_f32(dtype, &bytes) }))
        };
        self.plan.params.iter().enumerate().map(tensor).collect()
    }

    /// Writes the child's weights into a directory as `model.safetensors`, or as shards with an index if they take
    /// more than `shard_size` bytes. At most one tensor of the child is in memory at a time.
    pub fn write_weights(&self, directory: &Path, shard_size: u64) -> Result<()> {
        let mut tensors = Vec::with_capacity(self.plan.params.len());
        for (index, param) in self.plan.params.iter().enumerate() {
            let dtype = self.param_dtype(param)?;
            let data = move || Ok(self.param(index)?.bytes.into());
            tensors.push(LazyTensor::new(&param.name, dtype, param.shape(), data));
        }
        write_weights(directory, tensors, shard_size)
    }

    fn planned(&self, index: usize) -> Result<&'a PlannedParam> {
        let params = self.plan.params.len();
        self.plan.params.get(index).ok_or(Error::NoSuchParameter { index, params })
    }

    fn source(&self, parent: usize) -> Result<&'a dyn TensorSource> {
        let (parents, sources) = (self.plan.parents.len(), self.sources.len());
        self.sources.get(parent).copied().ok_or(Error::SourceCount { parents, sources })
    }

    fn param_dtype(&self, param: &PlannedParam) -> Result<Dtype> {
        if let Some(dtype) = self.dtype {
            return Ok(dtype);
        }
        // A parameter that all parents lack gets the type of the plan's first.
        let all = self.plan.params.iter().flat_map(|param| &param.placements);
        let first = param.placements.iter().chain(all).next();
        let first = first.ok_or_else(|| Error::NothingPlaced { parameter: param.name.clone() })?;
        Ok(self.source(first.parent)?.view(&first.source)?.dtype())
    }
}

/// Elements a thread produces at a time.
const CHUNK: usize = 1 << 16;

/// Produces a parameter's bytes, lines in parallel. `views` are the placements' sources.
fn produce<T: Element>(param: &PlannedParam, views: &[TensorView<'_>], dtype: Dtype) -> Result<Vec<u8>> {
    let geometry = Geometry::new(param);
    let size = geometry.lines().saturating_mul(geometry.line).saturating_mul(T::SIZE);
    let mut bytes = Vec::new();
    let out_of_memory = |_| Error::OutOfMemory { parameter: param.name.clone(), bytes: size };
    bytes.try_reserve_exact(size).map_err(out_of_memory)?;
    bytes.resize(size, 0);

    let normal = match param.fill {
        Fill::Zero => None,
        Fill::Normal { std, seed, .. } => Some((absolute(std, param, views), Philox::new(seed, &param.name))),
    };
    let noises = noises(param, views);
    let overlap = param.has_overlap();
    let lines_at_once = (CHUNK / geometry.line).max(1);
    bytes.par_chunks_mut(lines_at_once * geometry.line * T::SIZE).enumerate().try_for_each(
        |(chunk, out)| {
            let (mut row, mut scratch) = (Vec::new(), Vec::new());
            for (index, out) in out.chunks_mut(geometry.line * T::SIZE).enumerate() {
                let line = chunk * lines_at_once + index;
                geometry.row(line, &mut row);
                scratch.clear();
                for (((part, view), placement), noise) in
                    geometry.parts.iter().zip(views).zip(&param.placements).zip(&noises)
                {
                    let Some(first) = part.line(&row) else { continue };
                    if view.dtype() == dtype && placement.scale == 1.0 && noise.is_none() && !overlap {
                        for run in &part.segments {
                            let source = slice(view.data(), first + run.source, run.len, T::SIZE);
                            out[run.child * T::SIZE..][..source.len()].copy_from_slice(source);
                        }
                        continue;
                    }
                    // Sums and products are rounded once, when the line is complete.
                    scratch.resize(geometry.line, 0.0);
                    for run in &part.segments {
                        let sums = &mut scratch[run.child..][..run.len];
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
                        if !overlap {
                            encode::<T>(param, dtype, sums, &mut out[run.child * T::SIZE..])?;
                        }
                    }
                }
                if overlap && !scratch.is_empty() {
                    encode::<T>(param, dtype, &scratch, out)?;
                }
                for (part, absence) in geometry.absent.iter().zip(&param.absent) {
                    if absence.value == 0.0 || part.line(&row).is_none() {
                        continue;
                    }
                    for run in &part.segments {
                        scratch.clear();
                        scratch.resize(run.len, absence.value);
                        encode::<T>(param, dtype, &scratch, &mut out[run.child * T::SIZE..])?;
                    }
                }
                if let Some((std, stream)) = normal {
                    for (start, end) in geometry.cross(&row) {
                        let draws = stream.normals((line * geometry.line + start) as u64);
                        scratch.clear();
                        scratch.extend(draws.take(end - start).map(|draw| std * draw));
                        encode::<T>(param, dtype, &scratch, &mut out[start * T::SIZE..])?;
                    }
                }
            }
            Ok(())
        },
    )?;
    Ok(bytes)
}

/// A run of elements, as bytes.
fn slice(bytes: &[u8], first: usize, len: usize, size: usize) -> &[u8] {
    &bytes[first * size..][..len * size]
}

fn encode<T: Element>(param: &PlannedParam, dtype: Dtype, values: &[f64], out: &mut [u8]) -> Result<()> {
    for (&value, out) in values.iter().zip(out.chunks_exact_mut(T::SIZE)) {
        let rounded = T::from_f64(value);
        if value.is_finite() && !rounded.to_f64().is_finite() {
            return Err(Error::DoesNotFit { parameter: param.name.clone(), value, dtype });
        }
        rounded.write(out);
    }
    Ok(())
}

/// A standard deviation in the parameter's own units.
fn absolute(std: StandardDeviation, param: &PlannedParam, views: &[TensorView<'_>]) -> f64 {
    match std {
        StandardDeviation::Absolute(std) => std,
        StandardDeviation::Relative(share) => share * root_mean_square(param, views),
    }
}

/// For each placement, the factor of its noise and the numbers, by the source's elements.
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

/// The root mean square, about zero, of the scaled values of all tensors that are placed in a parameter. Added up in
/// fixed chunks, so that it does not depend on the number of threads.
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
