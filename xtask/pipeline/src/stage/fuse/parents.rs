//! The models of a fusion.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use fusion_core::checkpoint::Checkpoint;
use fusion_core::lineage::Lineage;
use t5_model::T5Config;
use t5_model::method::{FusionParent, Grown, MethodSettings};
use t5_model::optimizer::{CarryOptimizer, OptimizerState};

use super::PlannedFusion;
use crate::Warning;
use crate::checkpoint::{known_lineage, tokenizer_of};
use crate::problems::Problems;

/// A model to fuse: its name in messages, and its checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedModel {
    /// A stage's name, a path or `hf:ORG/NAME`.
    pub label: String,
    /// The checkpoint's directory on this machine.
    pub directory: PathBuf,
}

/// The models to fuse, opened.
pub struct Parents {
    /// Each model once, however often it is used.
    pub models: Vec<FusionParent>,
    checkpoints: Vec<Checkpoint>,
    /// For each of the plan's parents, the index of its model.
    sources: Vec<usize>,
}

impl Parents {
    /// Opens the parents, each as often as the checked settings use it.
    pub fn open(parents: &[NamedModel], settings: &MethodSettings) -> Result<Self> {
        let mut opened = Parents { models: Vec::new(), checkpoints: Vec::new(), sources: Vec::new() };
        let mut problems = Problems::default();
        problems.keep(settings.check(parents.len()).map_err(Into::into));
        for parent in parents {
            let known = opened.models.iter().position(|model| model.path == parent.directory);
            let source = known.or_else(|| problems.keep(opened.add(parent)));
            opened.sources.extend(
                source.into_iter().flat_map(|source| std::iter::repeat_n(source, settings.parent_copies())),
            );
        }
        problems.result()?;
        Ok(opened)
    }

    fn add(&mut self, parent: &NamedModel) -> Result<usize> {
        let checkpoint = Checkpoint::open(&parent.directory)?;
        self.models.push(FusionParent {
            label: parent.label.clone(),
            config: T5Config::of_checkpoint(&checkpoint)?,
            blake3: Some(checkpoint.blake3()?),
            path: parent.directory.clone(),
        });
        self.checkpoints.push(checkpoint);
        Ok(self.models.len() - 1)
    }

    /// Plans their fusion, or reports everything that prevents it.
    pub fn plan(self, settings: &MethodSettings) -> Result<PlannedFusion> {
        let (mut warnings, mut problems) = (Vec::new(), Problems::default());
        problems.keep(check_tokenizers(&self.models, &mut warnings));
        let all: Vec<FusionParent> =
            self.sources.iter().filter_map(|source| self.models.get(*source).cloned()).collect();
        let grown = problems.keep(settings.plan(&all).map_err(Into::into));
        let lineages: Vec<Option<Lineage>> = self
            .checkpoints
            .iter()
            .zip(&self.models)
            .map(|(checkpoint, model)| {
                problems.keep(known_lineage(checkpoint, Some(&model.label), &mut warnings)).flatten()
            })
            .collect();
        let carry = settings.optimizer;
        let carried = self.models.iter().filter(|_| carry != CarryOptimizer::Reset);
        let optimizers = carried.filter_map(|model| problems.keep(optimizer_of(model))).collect();
        problems.result()?;
        let Grown { plan, child } = grown.context("the fusion has no plan")?;
        warnings.extend(plan.warnings().into_iter().map(Warning::Fusion));
        let options = settings.recorded(&plan);
        let Parents { checkpoints, sources, .. } = self;
        let dtype = settings.dtype;
        let fusion = PlannedFusion {
            plan,
            child,
            warnings,
            parents: all,
            checkpoints,
            sources,
            lineages,
            optimizers,
            carry,
            options,
            dtype,
            calibrated: None,
        };
        // This checks the plan against the parents' headers.
        fusion.executor(&fusion.tensor_sources())?;
        fusion.carried()?;
        Ok(fusion)
    }
}

/// The optimiser state stored with a parent.
fn optimizer_of(model: &FusionParent) -> Result<OptimizerState> {
    Ok(OptimizerState::open(&model.path, model.blake3.as_deref().unwrap_or_default())?)
}

/// Checks that the parents agree on the tokens.
fn check_tokenizers(models: &[FusionParent], warnings: &mut Vec<Warning>) -> Result<()> {
    let mut first: Option<(&str, String)> = None;
    for model in models {
        let Some(tokenizer) = tokenizer_of(&model.path)? else {
            warnings.push(Warning::NoTokenizer { model: model.label.clone() });
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
