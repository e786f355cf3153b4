//! Fusing checkpoints, or growing one.

mod settings;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fusion_core::{
    Checkpoint, DEFAULT_SHARD_SIZE, Dtype, Executor, FusionPlan, Lineage, TensorSource,
    write_directory_atomically, write_file_atomically,
};
use serde::Serialize;
use serde_json::{Map, Value};
use t5_model::{FusionParent, Grown, T5Config};

use super::Source;
use crate::model::{copy_tokenizer, tokenizer_of};
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
                        sha256: Some(checkpoint.sha256()?),
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
            let matches = |lineage: &Lineage| lineage.sha256.is_none() || lineage.sha256 == model.sha256;
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

    /// Writes the child: all of the directory, or nothing.
    pub fn write(&self, output: &Path) -> Result<()> {
        let sources = self.tensor_sources();
        let mut executor = Executor::new(&self.plan, &sources)?;
        if let Some(dtype) = self.dtype {
            executor = executor.output_dtype(dtype.dtype())?;
        }
        write_directory_atomically::<anyhow::Error>(output, |directory| {
            let config = format!("{:#}\n", Value::Object(self.child.to_json()));
            write_file_atomically(&directory.join("config.json"), config.as_bytes())?;
            executor.write_weights(directory, DEFAULT_SHARD_SIZE)?;
            if let Some(first) = self.checkpoints.first() {
                copy_tokenizer(first.directory(), directory)?;
            }
            let lineages = self.sources.iter().map(|source| self.lineages[*source].clone());
            let mut lineage = Lineage::of_fusion(&self.plan, lineages);
            lineage.sha256 = Some(Checkpoint::open(directory)?.sha256()?);
            if let Some(fusion) = &mut lineage.fusion {
                fusion.other = self.options.clone();
            }
            Ok(lineage.write(directory)?)
        })
        .with_context(|| format!("the fused model was not written to {}", output.display()))
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
