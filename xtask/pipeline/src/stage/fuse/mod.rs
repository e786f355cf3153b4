//! Fuses checkpoints, or grows one.

mod calibrate;
mod parents;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use fusion_core::atomic::write_own_file;
use fusion_core::carry::Carry;
use fusion_core::checkpoint::{Checkpoint, WeightType, Writer};
use fusion_core::execute::{Executor, PlanDevice};
use fusion_core::lineage::Lineage;
use fusion_core::plan::FusionPlan;
use fusion_core::{HostTensors, TensorSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use t5_model::T5Config;
use t5_model::method::{FusionParent, Grown, MethodSettings};
use t5_model::optimizer::{CarriedState, CarryOptimizer, OptimizerState};
use toml::Spanned;

use super::text::Reading;
use super::{Context, DataTable, Forecast, Gives, Input, Keys, Kind, Known, Shown, Spent, Work};
use crate::checkpoint::{Beside, types_of, types_text, write_directory};
use crate::recipe::schema::both;
use crate::{Note, Warning, Watch};
pub use calibrate::{Calibrate, Calibrated};
pub use parents::{NamedModel, Parents};

/// The models to fuse.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fuse {
    /// Checkpoints, in the order in which the method takes them.
    pub parents: Vec<Input>,
    /// The method and its options.
    #[serde(flatten)]
    pub settings: MethodSettings,
    /// The text to fit the child on; `None` leaves the child as fused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrate: Option<Calibrate>,
}

/// The plan as text, beside the child.
const PLAN: &str = "plan.txt";

/// `fuse`, which gives a model.
pub const KIND: Kind = Kind {
    name: "fuse",
    about: "Fuses models into a larger one, or grows one.",
    gives: Some(Gives::Model),
    output: "model",
    table: None,
    keys: both::<OwnKeys, MethodSettings>,
    computes: true,
    together: false,
    read,
    show: Shown::parameters,
    arm: None,
};

#[derive(Deserialize, JsonSchema)]
struct OwnKeys {
    /// The models to fuse, in order: stages, checkpoints' directories, or `hf:ORG/NAME[@REVISION]`; always
    /// needed.
    #[schemars(with = "Option<Vec<String>>")]
    parents: Option<Vec<Spanned<String>>>,
    /// Fit a child fused under the rule to the ensemble of its parents, on so many examples of the text.
    calibrate_examples: Option<usize>,
    /// Overrides keys of `[data]`, for `calibrate_examples`.
    #[schemars(with = "Option<DataTable>")]
    #[expect(dead_code, reason = "read with `[data]`")]
    data: Option<()>,
}

fn read(keys: &mut Keys<'_>) -> Result<Arc<dyn Work>> {
    let data = keys.take_data();
    let OwnKeys { parents, calibrate_examples: examples, .. } = keys.own()?;
    let parents = parents.unwrap_or_default();
    if parents.is_empty() {
        return Err(keys.error("a fusion has a list of `parents`"));
    }
    let parents: Vec<Input> =
        parents.into_iter().map(|parent| keys.input(parent, Gives::Model)).collect::<Result<_>>()?;
    let calibrate = match examples {
        None => None,
        Some(examples) => {
            let data = keys.data_with(data)?;
            Some(Calibrate { data: keys.tokenized(data)?, examples })
        }
    };
    let settings: MethodSettings = keys.rest()?;
    let calibration = calibrate.iter().try_for_each(|calibrate| calibrate.check(&settings));
    calibration.map_err(|error| keys.error(error))?;
    // Checked now, not when the stage's turn comes, perhaps hours later.
    settings.check(parents.len()).map_err(|error| keys.error(error))?;
    Ok(Arc::new(Fuse { parents, settings, calibrate }))
}

impl Work for Fuse {
    fn inputs(&self) -> Vec<&Input> {
        let tokenizer = self.calibrate.as_ref().map(|calibrate| &calibrate.data.tokenizer);
        self.parents.iter().chain(tokenizer).collect()
    }

    fn seed(&self) -> Option<u64> {
        self.settings.is_random().then_some(self.settings.seed)
    }

    fn with_seed(&self, seed: u64) -> Option<Arc<dyn Work>> {
        let settings = MethodSettings { seed, ..self.settings.clone() };
        self.seed().map(|_| Arc::new(Fuse { settings, ..self.clone() }) as Arc<dyn Work>)
    }

    fn reads(&self) -> Vec<Reading<'_>> {
        let data = self.calibrate.as_ref().map(|calibrate| &calibrate.data);
        data.into_iter().flat_map(|data| [data.trained(), data.evaluated()]).collect()
    }

    fn computes(&self) -> bool {
        self.calibrate.is_some()
    }

    fn forecast(&self, known: &Known<'_>) -> Result<Forecast> {
        let tokenizer = known.one_tokenizer(self.inputs())?;
        let carries = self.settings.optimizer != CarryOptimizer::Reset;
        let optimizer = self.parents.first().filter(|_| carries).and_then(|first| known.optimizer(first));
        if carries {
            self.parents.iter().try_for_each(|parent| known.check_carried(parent, optimizer))?;
        }
        let mut parents = Vec::new();
        for input in &self.parents {
            let Some(config) = known.model(input)? else {
                return Ok(Forecast { optimizer, tokenizer, ..Forecast::default() });
            };
            let path = known.path(input)?.unwrap_or_else(|| PathBuf::from(input.to_string()));
            let parent = FusionParent { label: input.to_string(), config, blake3: None, path };
            parents.extend(std::iter::repeat_n(parent, self.settings.parent_copies()));
        }
        let Grown { plan, child } = self.settings.plan(&parents)?;
        if carries {
            plan.params.iter().try_for_each(|param| Carry::new(&plan, param).map(drop))?;
        }
        let warnings = plan.warnings().into_iter().map(Warning::Fusion).collect();
        let mut computation = Some(Spent::default());
        for parent in &self.parents {
            let behind = known.computation(parent)?;
            computation = computation.zip(behind).map(|(mut all, own)| {
                all.join(&own);
                all
            });
        }
        Ok(Forecast {
            model: Some(child),
            optimizer,
            tokenizer,
            computation,
            warnings,
            ..Forecast::default()
        })
    }

    fn beside(&self) -> &'static [&'static str] {
        &[PLAN]
    }

    fn run(&self, context: &Context<'_>) -> Result<Value> {
        let Context { name, compute, watch, .. } = *context;
        let parents = self
            .parents
            .iter()
            .map(|input| Ok(NamedModel { label: input.to_string(), directory: context.locate(input)? }));
        let fusion = PlannedFusion::new(&parents.collect::<Result<Vec<_>>>()?, &self.settings)?;
        let (fusion, calibration) = match &self.calibrate {
            None => (fusion, None),
            Some(calibrate) => {
                let tokenizer = context.locate(&calibrate.data.tokenizer)?;
                let (weights, outcome) =
                    calibrate.run(&fusion, &self.settings, &tokenizer, compute, name, watch)?;
                context.note(&outcome.note());
                (fusion.calibrated(weights, &outcome)?, Some(outcome))
            }
        };
        fusion.warnings.iter().for_each(|warning| context.note(&Note::Warning(warning)));
        fusion.write(context.output, name, None, watch)?;
        write_own_file(context.directory, PLAN, fusion.plan.to_string().as_bytes())?;
        let (parameters, warnings) = (fusion.plan.parameter_count(), &fusion.warnings);
        let mut result = json!({ "parameters": parameters, "warnings": warnings });
        if let Some(calibration) = calibration {
            result["calibration"] = serde_json::to_value(calibration)?;
        }
        Ok(result)
    }
}

/// A fusion that has been checked and can be written.
pub struct PlannedFusion {
    /// How each of the child's tensors is made from the parents'.
    pub plan: FusionPlan,
    /// The child's configuration.
    pub child: T5Config,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// The files that the child gets besides its own.
    beside: Beside,
    /// The plan's parents.
    parents: Vec<FusionParent>,
    checkpoints: Vec<Checkpoint>,
    /// For each of the plan's parents, the index of its checkpoint.
    sources: Vec<usize>,
    lineages: Vec<Option<Lineage>>,
    /// One for each checkpoint, if optimisers are carried over.
    optimizers: Vec<OptimizerState>,
    carry: CarryOptimizer,
    /// The method's options as recorded in the lineage.
    options: Map<String, Value>,
    dtype: Option<WeightType>,
    /// Values that replace the plan's.
    calibrated: Option<HostTensors>,
}

impl PlannedFusion {
    /// Opens the parents and plans their fusion.
    pub fn new(parents: &[NamedModel], settings: &MethodSettings) -> Result<Self> {
        Parents::open(parents, settings)?.plan(settings)
    }

    /// Size in bytes of the child's weights and, if carried over, its optimiser's state.
    pub fn size(&self) -> Result<u64> {
        let state = self.carried()?.map_or(0, |carried| carried.size());
        Ok(self.executor(&self.tensor_sources())?.weights_size()?.saturating_add(state))
    }

    /// Bytes of memory needed to write the child, excluding mapped pages of its parents.
    pub fn memory(&self) -> Result<u64> {
        Ok(self.executor(&self.tensor_sources())?.memory()?)
    }

    /// The same fusion with fitted weights.
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

    /// Checks the plan against the parents' headers. Warns of parents whose weights differ in type, and of a
    /// child whose weights are rounded.
    fn type_warnings(&self, models: &[FusionParent]) -> Result<Vec<Warning>> {
        let sources = self.tensor_sources();
        let executor = self.executor(&sources)?;
        let mut warnings = Vec::new();
        let types = self.checkpoints.iter().zip(models);
        let types = types.map(|(checkpoint, model)| types_of(checkpoint, &model.config));
        let types = types.collect::<Result<Vec<_>>>()?;
        if types.windows(2).any(|pair| pair[0] != pair[1]) {
            let named = models.iter().zip(&types);
            let parents = named.map(|(model, types)| (model.label.clone(), types_text(types))).collect();
            let child = types_text(&executor.dtypes()?);
            warnings.push(Warning::DifferentTypes { parents, child });
        }
        warnings.extend(executor.rounds_to()?.map(|dtype| Warning::Rounded { dtype }));
        Ok(warnings)
    }

    fn tensor_sources(&self) -> Vec<&dyn TensorSource> {
        self.sources.iter().map(|source| &self.checkpoints[*source] as &dyn TensorSource).collect()
    }

    /// The child's optimiser state, if one is carried over.
    fn carried(&self) -> Result<Option<CarriedState<'_>>> {
        let states = self.sources.iter().filter_map(|source| self.optimizers.get(*source)).collect();
        Ok(CarriedState::new(&self.plan, states, self.carry)?)
    }

    /// Writes the child's whole directory or nothing. `name` labels the progress. Without a device, the host
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
        let hash = self.child.write(directory, executor.tensors()?, &writer)?;
        self.beside.write(directory)?;
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
