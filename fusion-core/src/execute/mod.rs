//! Executes a plan: parents in, the child out, in pieces.

mod device;
mod produce;

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::checkpoint::{LazyTensor, PIECE, Producer, whole, writing_memory};
use crate::plan::{FusionPlan, PlannedParam};
use crate::tensor::{float_size, to_f32, wider};
use crate::{Dtype, Error, HostTensor, HostTensors, Result, TensorSource};

use device::produce_on;
pub use device::{PlacedBox, PlanDevice};
use produce::Production;

/// A plan that was checked against its parents and can be executed. The result depends neither on the order in which
/// parameters are produced nor on the number of threads.
pub struct Executor<'a> {
    plan: &'a FusionPlan,
    sources: &'a [&'a dyn TensorSource],
    dtype: Option<Dtype>,
    device: Option<&'a dyn PlanDevice>,
    values: Option<&'a HostTensors>,
}

/// A tensor of the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FusedTensor {
    /// The type of the elements.
    pub dtype: Dtype,
    /// The size of each dimension.
    pub shape: Vec<usize>,
    /// Little-endian, row-major.
    pub bytes: Vec<u8>,
}

impl<'a> Executor<'a> {
    /// Validates the plan and compares it with the headers of `sources`, one for each parent. Reads no values.
    pub fn new(plan: &'a FusionPlan, sources: &'a [&'a dyn TensorSource]) -> Result<Self> {
        plan.validate()?;
        plan.check_sources(sources)?;
        Ok(Executor { plan, sources, dtype: None, device: None, values: None })
    }

    /// Sets one type for all tensors of the child. By default, each has the narrowest type that holds the values of all its
    /// sources.
    pub fn output_dtype(self, dtype: Dtype) -> Result<Self> {
        float_size("the output", dtype)?;
        Ok(Executor { dtype: Some(dtype), ..self })
    }

    /// Lets a device compute everything that is not random, in f32. Parameters are then in memory as a whole. The result
    /// equals the host's up to rounding, and to the bit where scales are powers of two and nothing overlaps.
    pub fn on(self, device: &'a dyn PlanDevice) -> Self {
        Executor { device: Some(device), ..self }
    }

    /// Replaces the planned values of some parameters, for example with values that were fitted afterwards.
    pub fn with_values(self, values: &'a HostTensors) -> Self {
        Executor { values: Some(values), ..self }
    }

    /// Produces the parameter at an index of [`FusionPlan::params`]. Fails if a finite value is too large for the output
    /// type.
    pub fn param(&self, index: usize) -> Result<FusedTensor> {
        let params = self.plan.params.len();
        let param = self.plan.params.get(index).ok_or(Error::NoSuchParameter { index, params })?;
        let dtype = self.param_dtype(param)?;
        let produce = self.producer(param)?;
        let size = param.elements().saturating_mul(float_size(&param.name, dtype)?);
        let mut bytes = Vec::new();
        let out_of_memory = |_| Error::OutOfMemory { parameter: param.name.clone(), bytes: size };
        bytes.try_reserve_exact(size).map_err(out_of_memory)?;
        bytes.resize(size, 0);
        let pieces = bytes.par_chunks_mut(PIECE).enumerate();
        pieces.try_for_each(|(index, piece)| produce(index * PIECE, piece))?;
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

    /// The child's tensors, for a [`Writer`](crate::checkpoint::Writer), which keeps one piece for each thread in memory.
    pub fn tensors(&self) -> Result<Vec<LazyTensor<'_>>> {
        let tensor = |param: &'a PlannedParam| {
            let prepare = move || self.producer(param);
            Ok(LazyTensor::new(&param.name, self.param_dtype(param)?, param.shape(), prepare))
        };
        self.plan.params.iter().map(tensor).collect()
    }

    /// The size of the child's weights in bytes.
    pub fn weights_size(&self) -> Result<u64> {
        let mut sizes = self.plan.params.iter().map(|param| {
            let size = float_size(&param.name, self.param_dtype(param)?)?;
            Ok((param.elements() as u64).saturating_mul(size as u64))
        });
        sizes.try_fold(0, |sum: u64, size: Result<u64>| Ok(sum.saturating_add(size?)))
    }

    /// The types of the child's tensors.
    pub fn dtypes(&self) -> Result<BTreeSet<Dtype>> {
        self.plan.params.iter().map(|param| self.param_dtype(param)).collect()
    }

    /// The type that parents' values are rounded to, if any are: because a tensor of the child has a narrower type than
    /// one of its sources, or because a 16-bit type does not hold a value times its scale. Rounding to F32 does not count.
    pub fn rounds_to(&self) -> Result<Option<Dtype>> {
        for param in &self.plan.params {
            let dtype = self.param_dtype(param)?;
            if !matches!(dtype, Dtype::F16 | Dtype::BF16) {
                continue;
            }
            for placement in &param.placements {
                let source = self.source(placement.parent)?.view(&placement.source)?.dtype();
                if wider(source, dtype) != dtype || !is_power_of_two(placement.scale) {
                    return Ok(Some(dtype));
                }
            }
        }
        Ok(None)
    }

    /// The memory, in bytes, that writing [`Executor::tensors`] takes, not counting mapped pages of the parents.
    pub fn memory(&self) -> Result<u64> {
        Ok(writing_memory(self.weights_size()?))
    }

    /// Prepares to produce any piece of a parameter.
    fn producer(&self, param: &'a PlannedParam) -> Result<Producer<'a>> {
        let production = self.prepare(param)?;
        let given = self.values.and_then(|values| values.get(&param.name));
        let bytes = match (given, self.device) {
            (Some(values), _) if values.data.len() != param.elements() => {
                let (tensor, shape, elements) = (param.name.clone(), param.shape(), values.data.len());
                return Err(Error::ShapeMismatch { tensor, shape, elements });
            }
            (Some(values), _) => production.encode_all(&values.data)?,
            (None, Some(device)) => production.encode_all(&produce_on(device, &production)?.data)?,
            (None, None) => return Ok(Box::new(move |start, out: &mut [u8]| production.fill(start, out))),
        };
        Ok(whole(bytes))
    }

    fn prepare(&self, param: &'a PlannedParam) -> Result<Production<'a>> {
        let views = param
            .placements
            .iter()
            .map(|placement| self.source(placement.parent)?.view(&placement.source))
            .collect::<Result<Vec<_>>>()?;
        Ok(Production::new(param, views, self.param_dtype(param)?))
    }

    fn source(&self, parent: usize) -> Result<&'a dyn TensorSource> {
        let (parents, sources) = (self.plan.parents.len(), self.sources.len());
        self.sources.get(parent).copied().ok_or(Error::SourceCount { parents, sources })
    }

    fn param_dtype(&self, param: &PlannedParam) -> Result<Dtype> {
        if let Some(dtype) = self.dtype {
            return Ok(dtype);
        }
        let types = |param: &PlannedParam| -> Result<Option<Dtype>> {
            let sources = param
                .placements
                .iter()
                .map(|placement| Ok(self.source(placement.parent)?.view(&placement.source)?.dtype()));
            let mut widest = None;
            for dtype in sources {
                let dtype: Dtype = dtype?;
                widest = Some(widest.map_or(dtype, |widest| wider(widest, dtype)));
            }
            Ok(widest)
        };
        if let Some(dtype) = types(param)? {
            return Ok(dtype);
        }
        // A parameter that all parents lack gets the type of the first that one has.
        for param in &self.plan.params {
            if let Some(dtype) = types(param)? {
                return Ok(dtype);
            }
        }
        Err(Error::NothingPlaced { parameter: param.name.clone() })
    }
}

/// Whether multiplying by a scale only changes the exponent.
fn is_power_of_two(scale: f64) -> bool {
    scale.is_normal() && scale.abs().log2().fract() == 0.0
}
