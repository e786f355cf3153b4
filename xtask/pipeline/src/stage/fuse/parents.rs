//! The models of a fusion.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fusion_core::checkpoint::Checkpoint;
use fusion_core::lineage::Lineage;
use t5_model::T5Config;
use t5_model::method::{FusionParent, Grown, MethodSettings};
use t5_model::optimizer::{CarryOptimizer, OptimizerState};
use t5_model::text::Tokenizer;

use super::PlannedFusion;
use crate::Warning;
use crate::checkpoint::{Beside, Made, check_finite, check_said_type, known_lineage, tokenizer_of};
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
        let (checkpoint, config) = T5Config::open(&parent.directory)?;
        check_finite(&checkpoint, &config)?;
        self.models.push(FusionParent {
            label: parent.label.clone(),
            config,
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
        for (checkpoint, model) in self.checkpoints.iter().zip(&self.models) {
            let warning = problems.keep(check_said_type(checkpoint, &model.config, Some(&model.label)));
            warnings.extend(warning.flatten());
        }
        let directories = self.models.iter().map(|model| (model.label.as_str(), model.path.as_path()));
        let beside = problems.keep(Beside::of(&directories.collect::<Vec<_>>(), Made::Another));
        let carry = settings.optimizer;
        let carried = self.models.iter().filter(|_| carry != CarryOptimizer::Reset);
        let optimizers = carried.filter_map(|model| problems.keep(optimizer_of(model))).collect();
        problems.result()?;
        let Grown { plan, child } = grown.context("the fusion has no plan")?;
        warnings.extend(plan.warnings().into_iter().map(Warning::Fusion));
        let options = settings.recorded(&plan);
        let beside = beside.unwrap_or_default();
        warnings.extend(beside.warnings.iter().cloned());
        let Parents { models, checkpoints, sources } = self;
        let dtype = settings.dtype;
        let mut fusion = PlannedFusion {
            plan,
            child,
            beside,
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
        let warnings = fusion.type_warnings(&models)?;
        fusion.warnings.extend(warnings);
        fusion.carried()?;
        Ok(fusion)
    }
}

/// The optimiser state stored with a parent.
fn optimizer_of(model: &FusionParent) -> Result<OptimizerState> {
    Ok(OptimizerState::open(&model.path, model.blake3.as_deref().unwrap_or_default())?)
}

/// Texts that tokenizers of one vocabulary may divide differently: by case, by spaces of all kinds, by
/// Unicode's normal forms, by what stands for a space, and by the special tokens.
const PROBES: [&str; 6] = [
    "The Quick BROWN fox",
    "  two  spaces,\ta tab\nand a line  ",
    "ﬁne ½ ™ Ⅷ ｆｕｌｌ e\u{301}é",
    "a\u{a0}b\u{200b}c ▁d",
    "a <extra_id_0> b</s><pad>c <unk>",
    "don't stop: 3.14, \"quoted\" (so)",
];

/// Checks that the parents agree on the tokens. Warns if they divide texts differently.
fn check_tokenizers(models: &[FusionParent], warnings: &mut Vec<Warning>) -> Result<()> {
    let mut first: Option<(&str, Tokenizer)> = None;
    for model in models {
        let Some(tokenizer) = tokenizer_of(&model.path)? else {
            warnings.push(Warning::NoTokenizer { model: model.label.clone() });
            continue;
        };
        let Some((label, known)) = &first else {
            first = Some((&model.label, tokenizer));
            continue;
        };
        ensure!(
            known.fingerprint() == tokenizer.fingerprint(),
            "{label} and {} were trained with different tokenizers: their token ids mean different things, so \
             their logits cannot be averaged",
            model.label
        );
        for text in PROBES {
            if known.encode(text)? != tokenizer.encode(text)? {
                let (first, second, text) = (label.to_string(), model.label.clone(), text.to_owned());
                warnings.push(Warning::TextDividedDifferently { first, second, text });
                break;
            }
        }
    }
    Ok(())
}
