//! What a stage will produce, as far as that is known before it runs.

use std::path::PathBuf;

use anyhow::{Result, bail};
use t5_model::optimizer::Optimizer;
use t5_model::text::{SpanLengths, Tokenizer};
use t5_model::train::Settings;
use t5_model::{Backend, Computation, T5Config, TrainingMemory, TrainingSize};

use super::Input;
use crate::{Warning, Watch};

/// The forecast of one stage. Unknown values are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// The tokenizer it produces.
    pub vocabulary: Option<Vocabulary>,
    /// The model it produces.
    pub model: Option<T5Config>,
    /// The model's parameters; known when the model is.
    pub parameters: Option<u64>,
    /// The optimiser whose state is stored with the model.
    pub optimizer: Option<Optimizer>,
    /// Input and target tokens that it trains on.
    pub tokens: Option<f64>,
    /// Floating-point operations, forward and backward.
    pub flops: Option<f64>,
    /// The training it does, if any.
    pub training: Option<Training>,
    /// What the user should know before the stage runs.
    pub warnings: Vec<Warning>,
}

/// The vocabulary of a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vocabulary {
    /// Rows of an embedding for this vocabulary.
    pub size: usize,
    /// The number of tokens that stand for masked spans.
    pub sentinels: usize,
}

/// What determines the memory that training takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The model to train.
    pub config: T5Config,
    /// Examples on the device at a time.
    pub examples: usize,
    /// Tokens per input and per target.
    pub lengths: SpanLengths,
    /// Determines the size of the state kept for each parameter.
    pub optimizer: Optimizer,
    /// The dropout rate; memory depends only on whether it is 0.
    pub dropout: f64,
}

impl Training {
    /// Training with these settings on inputs and targets of these lengths.
    pub fn new(config: &T5Config, settings: &Settings, lengths: SpanLengths) -> Self {
        Training {
            config: config.clone(),
            examples: settings.micro_batch_size(),
            lengths,
            optimizer: settings.optimizer,
            dropout: settings.dropout,
        }
    }

    /// The memory that training takes on this backend, where it can be estimated.
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

    /// The warning to give if it will hardly fit.
    pub fn warning(&self, memory: &TrainingMemory, device: &str) -> Option<Warning> {
        let total = memory.total.filter(|total| memory.peak > *total)?;
        let (device, needed, fitting) = (device.to_owned(), memory.peak, memory.fitting);
        Some(Warning::Memory { device, needed, total, fitting })
    }
}

/// What is known of inputs while forecasting: files, and results of stages that need not have run.
pub struct Known<'a> {
    /// Follows the fetching of inputs that are not on this machine.
    pub watch: &'a dyn Watch,
    /// The stages so far that will not fail.
    pub stages: Vec<(&'a str, Forecast)>,
}

impl Known<'_> {
    fn stage(&self, input: &Input) -> Option<&Forecast> {
        self.stages.iter().find(|(name, _)| input.stage() == Some(name)).map(|(_, forecast)| forecast)
    }

    /// The path of an input that is not another stage's result.
    pub fn path(&self, input: &Input) -> Result<Option<PathBuf>> {
        input.path(self.watch)
    }

    /// The vocabulary of a tokenizer; `None` if it is not known yet.
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

    /// The configuration of a model; `None` if it is not known yet.
    pub fn model(&self, input: &Input) -> Result<Option<T5Config>> {
        Ok(match self.path(input)? {
            None => self.stage(input).and_then(|forecast| forecast.model.clone()),
            Some(path) => Some(T5Config::open(&path)?.1),
        })
    }

    /// The optimiser whose state a stage leaves.
    pub fn optimizer(&self, input: &Input) -> Option<Optimizer> {
        self.stage(input)?.optimizer
    }

    /// Checks that a stage leaves an optimiser's state, and one from which the wanted optimiser can continue.
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
