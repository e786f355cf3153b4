//! Fits a child, within the fusion rule, to the ensemble of its parents on text.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use fusion_core::HostTensors;
use fusion_core::execute::Executor;
use fusion_core::plan::Normalisation;
use serde::{Deserialize, Serialize};
use t5_model::method::{Cross, MethodSettings};
use t5_model::optimizer::CarryOptimizer;
use t5_model::text::DataPosition;
use t5_model::{Batch, Calibration, Comparison, Deviation, Session, T5Config};

use super::PlannedFusion;
use crate::checkpoint::tokenizer_for;
use crate::stage::text::Data;
use crate::{Compute, Interrupted, Note, Stoppable, Watch};

/// Examples computed at a time.
const BATCH: usize = 16;
/// One held-out example is used for measuring per this many fitted.
const HELD_OUT_SHARE: usize = 4;

/// The text a child is fitted on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibrate {
    /// The training text is fitted on; the held-out text measures the result.
    pub data: Data,
    /// The number of examples to fit.
    pub examples: usize,
}

/// A child's distance from the ensemble on held-out text, before and after fitting.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Calibrated {
    /// The number of examples that the child was to be fitted on.
    pub examples: usize,
    /// Of the child as fused.
    pub before: Deviation,
    /// Of the fitted child; equal to `before` if fitting brought it no closer.
    pub after: Deviation,
}

impl Calibrate {
    /// Checks that these settings leave anything to fit.
    pub fn check(&self, settings: &MethodSettings) -> Result<()> {
        let has_rule = settings.norm == Some(Normalisation::Rule);
        ensure!(
            has_rule,
            "only a fusion under the rule (`norm = \"rule\"`) is calibrated; the property is exact as it is"
        );
        ensure!(
            settings.optimizer == CarryOptimizer::Reset,
            "a calibration changes weights that a carried optimiser's state knows; the state can only be reset"
        );
        ensure!(self.examples > 0, "a calibration needs at least one example");
        Ok(())
    }

    /// Fits the planned child's weights. They are left unchanged if that brings them no closer.
    pub fn run(
        &self,
        fusion: &PlannedFusion,
        settings: &MethodSettings,
        tokenizer: &Path,
        compute: &Compute,
        name: &str,
        watch: &dyn Watch,
    ) -> Result<(HostTensors, Calibrated)> {
        let exact =
            MethodSettings { norm: Some(Normalisation::Property), cross: Cross::Zero, ..settings.clone() };
        let exact = exact.plan(&fusion.parents)?;
        let sources = fusion.tensor_sources();
        let ensemble = Executor::new(&exact.plan, &sources)?.in_memory()?;
        let mut weights = Executor::new(&fusion.plan, &sources)?.in_memory()?;
        let [fitted, held_out] = self.batches(fusion, tokenizer, watch)?;

        let open = |config: &T5Config, weights: &HostTensors| compute.open(config, weights);
        let mut ensemble = open(&exact.child, &ensemble)?;
        let measure = |ensemble: &mut dyn Session, weights: &HostTensors| {
            deviation(ensemble, open(&fusion.child, weights)?.as_mut(), &held_out)
        };
        let before = measure(ensemble.as_mut(), &weights)?;
        let original = weights.clone();
        let progress = watch.steps(name, "calibrating");
        let told = |done, steps| {
            progress(done, steps);
            !watch.wants_stop()
        };
        let calibration = Calibration { open: &open, batches: &fitted, progress: &told };
        let stoppable = Stoppable::new(watch);
        let finished = calibration.fit(ensemble.as_mut(), &fusion.child, &mut weights)?;
        drop(stoppable);
        if !finished {
            return Err(Interrupted { left: Some("nothing was written".into()), resumes: false }.into());
        }
        let after = measure(ensemble.as_mut(), &weights)?;
        let nearer = after.logits < before.logits;
        let (weights, after) = if nearer { (weights, after) } else { (original, before) };
        Ok((weights, Calibrated { examples: self.examples, before, after }))
    }

    /// The batches to fit on, and those to measure with.
    fn batches(
        &self,
        fusion: &PlannedFusion,
        tokenizer: &Path,
        watch: &dyn Watch,
    ) -> Result<[Vec<Batch>; 2]> {
        let first = fusion.parents.first().context("there are no parents")?;
        let tokenizer = tokenizer_for(&first.path, &fusion.child, Some(tokenizer))?;
        let text = self.data.open(tokenizer, watch)?;
        let fitted = self.examples.div_ceil(BATCH);
        let held_out = text.held_out(fitted.div_ceil(HELD_OUT_SHARE) * BATCH, BATCH)?;
        let training = text.training(BATCH, 0, DataPosition::default())?.take(fitted);
        let fitted = training.map(|next| Ok(next?.batch)).collect::<Result<Vec<_>>>()?;
        ensure!(!held_out.is_empty(), "the text that is held out is too short to measure a calibration with");
        Ok([fitted, held_out])
    }
}

fn deviation(ensemble: &mut dyn Session, child: &mut dyn Session, batches: &[Batch]) -> Result<Deviation> {
    let mut comparison = Comparison::default();
    for batch in batches {
        let (expected, found) = (ensemble.forward(batch, false)?.logits, child.forward(batch, false)?.logits);
        comparison.add(&expected, &found, &batch.labels);
    }
    Ok(comparison.deviation())
}

impl Calibrated {
    /// What is worth reporting about it.
    pub fn note(&self) -> Note<'_> {
        Note::Calibrated { before: &self.before, after: &self.after }
    }
}
