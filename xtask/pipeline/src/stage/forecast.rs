//! What a stage will make, as far as it can be said before it runs.

use std::path::PathBuf;

use anyhow::{Result, bail};
use fusion_core::checkpoint::Checkpoint;
use t5_model::optimizer::Optimizer;
use t5_model::text::{SpanLengths, Tokenizer};
use t5_model::train::Settings;
use t5_model::{Backend, Computation, T5Config, TrainingMemory, TrainingSize};

use super::Input;
use crate::{Warning, Watch};

/// Of one stage. What is not known has no value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// The tokenizer that it makes.
    pub vocabulary: Option<Vocabulary>,
    /// The model that it makes.
    pub model: Option<T5Config>,
    /// Of that model; known when it is.
    pub parameters: Option<u64>,
    /// The optimiser whose state it leaves with the model.
    pub optimizer: Option<Optimizer>,
    /// Input and target tokens it trains on.
    pub tokens: Option<f64>,
    /// Floating-point operations, forward and backward.
    pub flops: Option<f64>,
    /// What it trains, if it trains.
    pub training: Option<Training>,
    pub warnings: Vec<Warning>,
}

/// Of a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vocabulary {
    /// Rows of an embedding for it.
    pub size: usize,
    pub sentinels: usize,
}

/// What decides a training's memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    pub config: T5Config,
    /// Examples on the device at a time.
    pub examples: usize,
    pub lengths: SpanLengths,
    pub optimizer: Optimizer,
    pub dropout: f64,
}

impl Training {
    pub fn new(config: &T5Config, settings: &Settings, lengths: SpanLengths) -> Self {
        Training {
            config: config.clone(),
            examples: settings.micro_batch_size(),
            lengths,
            optimizer: settings.optimizer,
            dropout: settings.dropout,
        }
    }

    /// The memory it takes as the backend computes, where that can be told.
    pub fn memory(&self, backend: &dyn Backend, how: &Computation) -> Option<TrainingMemory> {
        let Training { config, examples, lengths, optimizer, dropout } = self;
        let size = TrainingSize {
            config,
            examples: *examples,
            input_length: lengths.inputs,
            target_length: lengths.targets,
            optimizer: *optimizer,
            dropout: *dropout > 0.0,
        };
        backend.training_memory(how, &size)
    }

    /// What is to be said if it will hardly fit.
    pub fn warning(&self, memory: &TrainingMemory, device: &str) -> Option<Warning> {
        let total = memory.total.filter(|total| memory.peak > *total)?;
        let (device, needed, fitting) = (device.to_owned(), memory.peak, memory.fitting);
        Some(Warning::Memory { device, needed, total, fitting })
    }
}

/// What is known of inputs while looking ahead: files, and what stages will make of which there need not be anything yet.
pub struct Known<'a> {
    pub watch: &'a dyn Watch,
    /// The stages so far that will not fail.
    pub stages: Vec<(&'a str, Forecast)>,
}

impl Known<'_> {
    fn stage(&self, input: &Input) -> Option<&Forecast> {
        self.stages.iter().find(|(name, _)| input.stage() == Some(name)).map(|(_, forecast)| forecast)
    }

    /// The path of an input that no stage makes.
    pub fn path(&self, input: &Input) -> Result<Option<PathBuf>> {
        input.path(self.watch)
    }

    pub fn vocabulary(&self, input: &Input) -> Result<Option<Vocabulary>> {
        Ok(match self.path(input)? {
            None => self.stage(input).and_then(|forecast| forecast.vocabulary),
            Some(path) => {
                let tokenizer = Tokenizer::load(path)?;
                let (size, sentinels) = (tokenizer.model_vocab_size(), tokenizer.sentinels().len());
                Some(Vocabulary { size, sentinels })
            }
        })
    }

    pub fn model(&self, input: &Input) -> Result<Option<T5Config>> {
        Ok(match self.path(input)? {
            None => self.stage(input).and_then(|forecast| forecast.model.clone()),
            Some(path) => Some(T5Config::of_checkpoint(&Checkpoint::open(&path)?)?),
        })
    }

    /// The optimiser whose state a stage leaves.
    pub fn optimizer(&self, input: &Input) -> Option<Optimizer> {
        self.stage(input)?.optimizer
    }

    /// A stage must leave an optimiser's state, and one that the wanted optimiser can go on from.
    pub fn check_carried(&self, input: &Input, wanted: Option<Optimizer>) -> Result<()> {
        let Some(stage) = input.stage() else { return Ok(()) };
        let Some(forecast) = self.stage(input) else { return Ok(()) };
        let Some(own) = forecast.optimizer else {
            bail!(
                "stage {stage:?} leaves no optimiser's state to carry over; a training does with `keep_optimizer = true`, a \
                 fusion with `optimizer = \"carry\"`"
            )
        };
        match wanted.filter(|wanted| !own.averages_like(wanted)) {
            Some(wanted) => {
                bail!("stage {stage:?} leaves the state of {own}, which is of no use for {wanted}")
            }
            None => Ok(()),
        }
    }
}
