//! Compares a child with the ensemble of its parents.

use std::cell::Cell;
use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use fusion_core::HostTensor;
use fusion_core::checkpoint::Checkpoint;
use fusion_core::random::Philox;
use t5_model::{Batch, Comparison, Deviation, Session, T5Config};

use crate::source::ModelPlace;
use crate::{Compute, Warning, Watch};

/// Examples drawn from one stream of random numbers.
const STREAM: u32 = 4;

/// A child and its parents.
pub struct Family {
    /// The model that was made from the parents.
    pub child: Model,
    /// The members of the ensemble, in the order of their weights.
    pub parents: Vec<Model>,
}

/// A model under comparison.
pub struct Model {
    /// As the user gave it: a directory's path or `hf:ORG/NAME`.
    pub name: String,
    /// Loaded onto the device only when the model runs.
    pub checkpoint: Checkpoint,
    /// The checkpoint's configuration.
    pub config: T5Config,
}

/// How far models are from the ensemble.
pub struct Deviations {
    /// The child's distance from the ensemble of all parents.
    pub child: Deviation,
    /// By name; a parent used twice, as in self fusion, appears once.
    pub parents: Vec<(String, Deviation)>,
}

/// The sizes of examples of random tokens.
#[derive(Clone, Copy, Debug)]
pub struct RandomBatches {
    /// The number of examples.
    pub examples: u32,
    /// Examples per batch.
    pub batch_size: u16,
    /// Length of the longest input in tokens.
    pub input_length: u16,
    /// Equal seeds give equal examples, however they are cut into batches.
    pub seed: u64,
}

impl Model {
    fn open(place: &ModelPlace, watch: &dyn Watch) -> Result<Self> {
        let (checkpoint, config) = T5Config::open(&place.directory(watch)?)?;
        Ok(Model { name: place.to_string(), checkpoint, config })
    }
}

impl Family {
    /// Opens models that share a vocabulary.
    pub fn open(child: &ModelPlace, parents: &[ModelPlace], watch: &dyn Watch) -> Result<Self> {
        let child = Model::open(child, watch)?;
        let parents = parents.iter().map(|parent| Model::open(parent, watch)).collect::<Result<Vec<_>>>()?;
        for parent in &parents {
            let (own, others) = (child.config.vocab_size, parent.config.vocab_size);
            ensure!(own == others, "{} has {own} tokens, but {} {others}", child.name, parent.name);
        }
        Ok(Family { child, parents })
    }

    /// Warns if the child's lineage names other weights.
    pub fn warnings(&self) -> Result<Vec<Warning>> {
        let mut warnings = Vec::new();
        let fusion = self.child.checkpoint.lineage()?.and_then(|lineage| lineage.fusion);
        let Some(fusion) = fusion else { return Ok(warnings) };
        for Model { name, checkpoint, .. } in &self.parents {
            let hash = checkpoint.blake3()?;
            let mut known = fusion.parents.iter().map(|known| known.blake3.as_ref());
            if !known.any(|known| known.is_none_or(|known| *known == hash)) {
                let (child, parent) = (self.child.name.clone(), name.clone());
                warnings.push(Warning::NotMadeFrom { child, parent });
            }
        }
        Ok(warnings)
    }

    /// The parents' weights in the average: those given, or those in the child's lineage, or else equal ones.
    pub fn weights(&self, given: Option<&[f64]>) -> Result<Vec<f64>> {
        let parents = self.parents.len();
        let recorded = || -> Result<Option<Vec<f64>>> {
            let fusion = self.child.checkpoint.lineage()?.and_then(|lineage| lineage.fusion);
            let weights = fusion.and_then(|fusion| fusion.other.get("weights").cloned());
            let weights = weights.map(serde_json::from_value).transpose();
            let name = &self.child.name;
            weights.with_context(|| format!("{name}: the weights in lineage.json are not numbers"))
        };
        let weights = match given {
            Some(weights) => Some(weights.to_vec()),
            None => recorded()?,
        };
        let weights = weights.unwrap_or_else(|| vec![1.0 / parents as f64; parents]);
        ensure!(weights.len() == parents, "there are {} weights for {parents} parents", weights.len());
        let total: f64 = weights.iter().sum();
        ensure!((total - 1.0).abs() <= 1e-6, "the weights must add up to 1, but they add up to {total}");
        Ok(weights)
    }

    /// Batches of random tokens.
    pub fn random_batches(&self, sizes: &RandomBatches) -> Vec<Batch> {
        let vocabulary = self.child.config.vocab_size as f64;
        let examples: Vec<_> = (0..sizes.examples).map(|index| sizes.example(index, vocabulary)).collect();
        let batches = examples.chunks(sizes.batch_size.into());
        let pairs = |batch: &'_ [(Vec<i32>, Vec<i32>)]| {
            Batch::padded(batch.iter().map(|(input, target)| (&**input, &**target)), 0)
        };
        batches.map(pairs).collect()
    }

    /// Runs every model on the batches, one at a time.
    pub fn compare(
        &self,
        weights: &[f64],
        batches: &[Batch],
        compute: &Compute,
        watch: &dyn Watch,
    ) -> Result<Deviations> {
        let distinct: BTreeSet<&str> = self.parents.iter().map(|parent| parent.name.as_str()).collect();
        let (all, done) = (batches.len() * (self.parents.len() + distinct.len() + 1), Cell::new(0));
        let progress = watch.steps("verify", "batches run");
        let ran = || {
            done.set(done.get() + 1);
            progress(done.get(), all);
        };
        let ensemble = self.ensemble(weights, batches, compute, &ran)?;
        let compare = |model: &Model| -> Result<Deviation> {
            let mut comparison = Comparison::default();
            let mut session = compute.open_checkpoint(&model.checkpoint)?;
            for (batch, expected) in batches.iter().zip(&ensemble) {
                comparison.add(expected, &logits(session.as_mut(), batch, &model.name)?, &batch.labels);
                ran();
            }
            Ok(comparison.deviation())
        };
        let child = compare(&self.child)?;
        let mut parents: Vec<(String, Deviation)> = Vec::new();
        for parent in &self.parents {
            if !parents.iter().any(|(name, _)| *name == parent.name) {
                parents.push((parent.name.clone(), compare(parent)?));
            }
        }
        Ok(Deviations { child, parents })
    }

    /// The average of the parents' logits for each batch.
    fn ensemble(
        &self,
        weights: &[f64],
        batches: &[Batch],
        compute: &Compute,
        ran: &dyn Fn(),
    ) -> Result<Vec<HostTensor>> {
        let mut sums: Vec<Option<HostTensor>> = vec![None; batches.len()];
        for (parent, &weight) in self.parents.iter().zip(weights) {
            let mut session = compute.open_checkpoint(&parent.checkpoint)?;
            for (batch, sum) in batches.iter().zip(&mut sums) {
                let mut logits = logits(session.as_mut(), batch, &parent.name)?;
                ran();
                logits.data.iter_mut().for_each(|logit| *logit = (f64::from(*logit) * weight) as f32);
                match sum {
                    None => *sum = Some(logits),
                    Some(sum) => sum.data.iter_mut().zip(logits.data).for_each(|(sum, logit)| *sum += logit),
                }
            }
        }
        Ok(sums.into_iter().flatten().collect())
    }
}

impl RandomBatches {
    /// Inputs of different lengths, so that some are padded, with targets a quarter as long.
    fn example(&self, index: u32, vocabulary: f64) -> (Vec<i32>, Vec<i32>) {
        let (stream, place) = (index / STREAM, u64::from(index % STREAM));
        let stream = Philox::new(self.seed, &format!("verify {stream}"));
        let token = |at: u64| (f64::from(stream.uniform(at)) * vocabulary) as i32;
        let length = u64::from(self.input_length);
        let first = place * 2 * length;
        let input = length - place % (length / 4);
        let of = |from: u64, count: u64| (from..from + count).map(token).collect();
        (of(first, input), of(first + length, length / 4))
    }
}

/// `[batch, target, vocabulary]`.
fn logits(session: &mut dyn Session, batch: &Batch, name: &str) -> Result<HostTensor> {
    Ok(session.forward(batch, false).with_context(|| format!("cannot run {name}"))?.logits)
}
