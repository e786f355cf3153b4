//! Fusing checkpoints, or growing one.

mod calibrate;
mod parents;

use std::path::Path;

use anyhow::Result;
use fusion_core::atomic::write_file_atomically;
use fusion_core::checkpoint::{Checkpoint, WeightType, Writer};
use fusion_core::execute::{Executor, PlanDevice};
use fusion_core::lineage::Lineage;
use fusion_core::plan::FusionPlan;
use fusion_core::{HostTensors, TensorSource};
use serde::Serialize;
use serde_json::{Map, Value};
use t5_model::T5Config;
use t5_model::method::{FusionParent, MethodSettings};
use t5_model::optimizer::{CarriedState, CarryOptimizer, OptimizerState};

use super::Source;
use crate::checkpoint::{copy_tokenizer, write_directory};
use crate::{Warning, Watch};
pub use calibrate::{Calibrate, Calibrated};
pub use parents::{NamedModel, Parents};

/// Models that are fused.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fuse {
    pub parents: Vec<Source>,
    #[serde(flatten)]
    pub settings: MethodSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrate: Option<Calibrate>,
}

/// A fusion that was checked and can be written.
pub struct PlannedFusion {
    pub plan: FusionPlan,
    pub child: T5Config,
    /// What its author should know.
    pub warnings: Vec<Warning>,
    /// The plan's.
    parents: Vec<FusionParent>,
    checkpoints: Vec<Checkpoint>,
    /// The checkpoint of each of the plan's parents.
    sources: Vec<usize>,
    lineages: Vec<Option<Lineage>>,
    /// Of each checkpoint, if they are carried over.
    optimizers: Vec<OptimizerState>,
    carry: CarryOptimizer,
    /// What the lineage says of the method's options.
    options: Map<String, Value>,
    dtype: Option<WeightType>,
    /// Other values than the plan's.
    calibrated: Option<HostTensors>,
}

impl PlannedFusion {
    /// Opens the parents and plans their fusion.
    pub fn new(parents: &[NamedModel], settings: &MethodSettings) -> Result<Self> {
        Parents::open(parents, settings)?.plan(settings)
    }

    /// The bytes of the child's weights and, where it is carried over, its optimiser's state.
    pub fn size(&self) -> Result<u64> {
        let state = self.carried()?.map_or(0, |carried| carried.size());
        Ok(self.executor(&self.tensor_sources())?.weights_size()?.saturating_add(state))
    }

    /// Bytes of memory that writing the child takes, mapped pages of its parents not counted.
    pub fn memory(&self) -> Result<u64> {
        Ok(self.executor(&self.tensor_sources())?.memory()?)
    }

    /// The same with weights that were fitted.
    pub fn calibrated(mut self, weights: HostTensors, outcome: &Calibrated) -> Result<Self> {
        self.options.insert("calibration".to_owned(), serde_json::to_value(outcome)?);
        Ok(PlannedFusion { calibrated: Some(weights), ..self })
    }

    fn executor<'a>(&'a self, sources: &'a [&'a dyn TensorSource]) -> Result<Executor<'a>> {
        let mut executor = Executor::new(&self.plan, sources)?;
        if let Some(values) = &self.calibrated {
            executor = executor.with_values(values);
        }
        Ok(match self.dtype {
            Some(dtype) => executor.output_dtype(dtype.dtype())?,
            None => executor,
        })
    }

    fn tensor_sources(&self) -> Vec<&dyn TensorSource> {
        self.sources.iter().map(|source| &self.checkpoints[*source] as &dyn TensorSource).collect()
    }

    /// The child's optimiser state, unless it starts without.
    fn carried(&self) -> Result<Option<CarriedState<'_>>> {
        let states = self.sources.iter().filter_map(|source| self.optimizers.get(*source)).collect();
        Ok(CarriedState::new(&self.plan, states, self.carry)?)
    }

    /// Writes the child: all of the directory, or nothing. `name` is what the progress is called. Without a device, the host
    /// executes the plan.
    pub fn write(
        &self,
        output: &Path,
        name: &str,
        device: Option<&dyn PlanDevice>,
        watch: &dyn Watch,
    ) -> Result<()> {
        let sources = self.tensor_sources();
        let mut executor = self.executor(&sources)?;
        if let Some(device) = device {
            executor = executor.on(device);
        }
        write_directory(output, (name, "the fused model"), self.size()?, watch, |directory, progress| {
            self.fill(directory, &executor, Writer::default().progress(progress))
        })
    }

    fn fill(&self, directory: &Path, executor: &Executor<'_>, writer: Writer<'_>) -> Result<()> {
        let config = format!("{:#}\n", Value::Object(self.child.to_json()));
        write_file_atomically(&directory.join("config.json"), config.as_bytes())?;
        let hash = writer.weights(directory, executor.tensors()?)?;
        if let Some(first) = self.checkpoints.first() {
            copy_tokenizer(first.directory(), directory)?;
        }
        if let Some(carried) = self.carried()? {
            carried.write(directory, &hash, &writer)?;
        }
        let lineages = self.sources.iter().map(|source| self.lineages[*source].clone());
        let mut lineage = Lineage::of_fusion(&self.plan, lineages);
        lineage.blake3 = Some(hash);
        if let Some(fusion) = &mut lineage.fusion {
            fusion.other = self.options.clone();
        }
        Ok(lineage.write(directory)?)
    }
}
