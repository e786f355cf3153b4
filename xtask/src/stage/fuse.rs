//! Fusing checkpoints, or growing one.

mod settings;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fusion_core::{
    Checkpoint, DEFAULT_SHARD_SIZE, Dtype, Executor, FusionPlan, Lineage, TensorSource,
    write_directory_atomically, write_file_atomically,
};
use serde::Serialize;
use serde_json::{Map, Value};
use t5_model::{FusionParent, Grown, T5Config};

use super::Source;
use crate::interrupt::{self, Interrupted};
use crate::model::{copy_tokenizer, tokenizer_of};
use crate::progress::WritingProgress;
pub use settings::{Cross, FuseSettings};

/// Models that are fused.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fuse {
    pub parents: Vec<Source>,
    #[serde(flatten)]
    pub settings: FuseSettings,
}

/// The type of a checkpoint's weights.
#[derive(Clone, Copy, Debug, serde::Deserialize, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    F32,
    F16,
    Bf16,
}

impl WeightType {
    pub fn dtype(self) -> Dtype {
        match self {
            WeightType::F32 => Dtype::F32,
            WeightType::F16 => Dtype::F16,
            WeightType::Bf16 => Dtype::BF16,
        }
    }
}

/// A model to fuse: a name for texts, and its checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedModel {
    pub label: String,
    pub directory: PathBuf,
}

/// A fusion that was checked and can be written.
pub struct PlannedFusion {
    pub plan: FusionPlan,
    pub child: T5Config,
    /// What its author should know.
    pub warnings: Vec<String>,
    checkpoints: Vec<Checkpoint>,
    /// The checkpoint of each of the plan's parents.
    sources: Vec<usize>,
    lineages: Vec<Option<Lineage>>,
    /// What the lineage says of the method's options.
    options: Map<String, Value>,
    dtype: Option<WeightType>,
}

impl PlannedFusion {
    /// Opens the parents and plans their fusion.
    pub fn new(parents: &[NamedModel], settings: &FuseSettings) -> Result<Self> {
        settings.check(parents.len())?;
        let mut warnings = Vec::new();
        let mut checkpoints: Vec<Checkpoint> = Vec::new();
        let mut models: Vec<FusionParent> = Vec::new();
        let mut sources = Vec::new();
        for parent in parents {
            let opened = checkpoints.iter().position(|checkpoint| checkpoint.directory() == parent.directory);
            let source = match opened {
                Some(source) => source,
                None => {
                    let checkpoint = Checkpoint::open(&parent.directory)?;
                    models.push(FusionParent {
                        label: parent.label.clone(),
                        config: T5Config::of_checkpoint(&checkpoint)?,
                        blake3: Some(checkpoint.blake3()?),
                        path: parent.directory.clone(),
                    });
                    checkpoints.push(checkpoint);
                    checkpoints.len() - 1
                }
            };
            sources.extend(std::iter::repeat_n(source, settings.parent_copies()));
        }
        check_tokenizers(&models, &mut warnings)?;
        let lineages = checkpoints.iter().zip(&models).map(|(checkpoint, model)| {
            let lineage = checkpoint.lineage()?;
            let matches = |lineage: &Lineage| lineage.blake3.is_none() || lineage.blake3 == model.blake3;
            if lineage.as_ref().is_some_and(|lineage| !matches(lineage)) {
                warnings.push(format!(
                    "the lineage.json of {} was written for other weights and is left out",
                    model.label
                ));
            }
            Ok(lineage.filter(matches))
        });
        let lineages = lineages.collect::<Result<Vec<_>>>()?;

        let all: Vec<FusionParent> = sources.iter().map(|source| models[*source].clone()).collect();
        let Grown { plan, child } = settings.plan(&all)?;
        warnings.extend(plan.warnings().iter().map(ToString::to_string));
        let options = settings.recorded(plan.params.iter().any(|param| !param.absent.is_empty()))?;
        let dtype = settings.dtype;
        let fusion = PlannedFusion { plan, child, warnings, checkpoints, sources, lineages, options, dtype };
        Executor::new(&fusion.plan, &fusion.tensor_sources())?; // compares the plan with the parents' headers
        Ok(fusion)
    }

    fn tensor_sources(&self) -> Vec<&dyn TensorSource> {
        self.sources.iter().map(|source| &self.checkpoints[*source] as &dyn TensorSource).collect()
    }

    /// Writes the child: all of the directory, or nothing. `name` is what the progress is called.
    pub fn write(&self, output: &Path, name: &str) -> Result<()> {
        let sources = self.tensor_sources();
        let mut executor = Executor::new(&self.plan, &sources)?;
        if let Some(dtype) = self.dtype {
            executor = executor.output_dtype(dtype.dtype())?;
        }
        let progress = WritingProgress::new(name, executor.weights_size()?);
        let wrote = |count| {
            progress.wrote(count);
            if interrupt::wanted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let executor = executor.progress(&wrote);
        let _graceful = interrupt::let_finish();
        let written = write_directory_atomically(output, |directory| self.fill(directory, &executor));
        written.map_err(|error| match error.downcast_ref() {
            Some(fusion_core::Error::Stopped) => {
                Interrupted { advice: format!("nothing was written to {}", output.display()) }.into()
            }
            _ => error.context(format!("the fused model was not written to {}", output.display())),
        })
    }

    fn fill(&self, directory: &Path, executor: &Executor<'_>) -> Result<()> {
        let config = format!("{:#}\n", Value::Object(self.child.to_json()));
        write_file_atomically(&directory.join("config.json"), config.as_bytes())?;
        let hash = executor.write_weights(directory, DEFAULT_SHARD_SIZE)?;
        if let Some(first) = self.checkpoints.first() {
            copy_tokenizer(first.directory(), directory)?;
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

/// The parents must speak of the same tokens.
fn check_tokenizers(models: &[FusionParent], warnings: &mut Vec<String>) -> Result<()> {
    let mut first: Option<(&str, String)> = None;
    for model in models {
        let Some(tokenizer) = tokenizer_of(&model.path)? else {
            warnings.push(format!(
                "{} comes without a tokenizer: whether its tokens are the other parents' was not checked",
                model.label
            ));
            continue;
        };
        match &first {
            None => first = Some((&model.label, tokenizer.fingerprint().to_owned())),
            Some((_, fingerprint)) if fingerprint == tokenizer.fingerprint() => {}
            Some((label, _)) => bail!(
                "{label} and {} were trained with different tokenizers: their token ids mean different things, so \
                 their logits cannot be averaged",
                model.label
            ),
        }
    }
    Ok(())
}
