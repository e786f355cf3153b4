//! What stages will make, as far as it can be said before they run.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use fusion_core::carry::Carry;
use fusion_core::checkpoint::Checkpoint;
use t5_model::method::{FusionParent, Grown};
use t5_model::optimizer::{CarryOptimizer, Optimizer};
use t5_model::text::{SpanLengths, Tokenizer};
use t5_model::train::Settings;
use t5_model::{
    Backend, Computation, T5Config, TrainingMemory, TrainingSize, parameter_table, training_flops_per_token,
};

use crate::problems::Problems;
use crate::stage::fuse::Fuse;
use crate::stage::pretrain::{Pretrain, Start};
use crate::stage::{Source, Stage, Work};
use crate::{Warning, Watch};

/// Of one stage. What is not known has no value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// Of the model that the stage makes.
    pub parameters: Option<u64>,
    /// Input and target tokens it trains on.
    pub tokens: Option<f64>,
    /// Floating-point operations, forward and backward.
    pub flops: Option<f64>,
    /// What it trains, if it trains.
    pub training: Option<Training>,
    pub warnings: Vec<Warning>,
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

/// Looks ahead, stage by stage. Stages' results need not exist.
pub struct Forecasts<'a> {
    watch: &'a dyn Watch,
    /// The vocabularies' sizes and sentinels.
    tokenizers: HashMap<&'a str, (usize, usize)>,
    models: HashMap<&'a str, T5Config>,
    /// The optimisers whose states stages leave with their models.
    optimizers: HashMap<&'a str, Optimizer>,
}

impl<'a> Forecasts<'a> {
    /// Forecasts stages that stand behind their inputs, or says everything that will be refused.
    pub fn of(stages: impl IntoIterator<Item = &'a Stage>, watch: &'a dyn Watch) -> Result<Vec<Forecast>> {
        let mut problems = Problems::default();
        let mut forecasts = Forecasts {
            watch,
            tokenizers: HashMap::new(),
            models: HashMap::new(),
            optimizers: HashMap::new(),
        };
        let mut next = |stage: &'a Stage| {
            let forecast = forecasts.next(stage).with_context(|| format!("stage {:?} will fail", stage.name));
            problems.keep(forecast).unwrap_or_default()
        };
        let all = stages.into_iter().map(&mut next).collect();
        problems.result()?;
        Ok(all)
    }

    fn next(&mut self, stage: &'a Stage) -> Result<Forecast> {
        let (model, forecast) = match &stage.work {
            Work::Tokenizer(work) => {
                self.tokenizers.insert(&stage.name, (work.vocabulary.next_multiple_of(128), work.sentinels));
                return Ok(Forecast::default());
            }
            Work::Pretrain(work) => {
                if let (true, Start::Model(source)) = (work.settings.carry_optimizer, &work.start) {
                    self.check_carried(source, Some(work.settings.optimizer))?;
                }
                if work.settings.keep_optimizer {
                    self.optimizers.insert(&stage.name, work.settings.optimizer);
                }
                self.pretrain(work)?
            }
            Work::Fuse(work) => {
                if work.settings.optimizer != CarryOptimizer::Reset {
                    let first = work.parents.first().and_then(|source| self.optimizer(source));
                    work.parents.iter().try_for_each(|source| self.check_carried(source, first))?;
                    self.optimizers.extend(first.map(|first| (stage.name.as_str(), first)));
                }
                self.fuse(work)?
            }
            Work::Glue(_) | Work::Evaluate(_) => return Ok(Forecast::default()),
        };
        let Some(model) = model else { return Ok(forecast) };
        let parameters = Some(parameter_table(&model)?.parameter_count());
        self.models.insert(&stage.name, model);
        Ok(Forecast { parameters, ..forecast })
    }

    fn pretrain(&self, work: &Pretrain) -> Result<(Option<T5Config>, Forecast)> {
        let Some((vocabulary, sentinels)) = self.tokenizer(&work.data.tokenizer)? else {
            return Ok((None, Forecast::default()));
        };
        let model = match &work.start {
            Start::Random(dimensions) => Some(dimensions.config(vocabulary)?),
            Start::Model(source) => self.model(source)?,
        };
        let lengths = SpanLengths::t5(work.data.input_length, sentinels)?;
        let examples = work.settings.steps as f64 * work.settings.batch_size as f64;
        let tokens = examples * (lengths.inputs + lengths.targets) as f64;
        let each = |model| training_flops_per_token(model, lengths.inputs, lengths.targets);
        let flops = model.as_ref().map(|model| each(model) * tokens);
        let training = model.as_ref().map(|model| Training::new(model, &work.settings, lengths));
        Ok((model, Forecast { tokens: Some(tokens), flops, training, ..Forecast::default() }))
    }

    fn fuse(&self, work: &Fuse) -> Result<(Option<T5Config>, Forecast)> {
        let mut parents = Vec::new();
        for source in &work.parents {
            let Some(config) = self.model(source)? else { return Ok((None, Forecast::default())) };
            let path = source.path(self.watch)?.unwrap_or_else(|| PathBuf::from(source.to_string()));
            let parent = FusionParent { label: source.to_string(), config, blake3: None, path };
            parents.extend(std::iter::repeat_n(parent, work.settings.parent_copies()));
        }
        let Grown { plan, child } = work.settings.plan(&parents)?;
        if work.settings.optimizer != CarryOptimizer::Reset {
            plan.params.iter().try_for_each(|param| Carry::new(&plan, param).map(drop))?;
        }
        let warnings = plan.warnings().into_iter().map(Warning::Fusion).collect();
        Ok((Some(child), Forecast { warnings, ..Forecast::default() }))
    }

    fn optimizer(&self, source: &Source) -> Option<Optimizer> {
        source.stage().and_then(|stage| self.optimizers.get(stage).copied())
    }

    /// A stage must leave an optimiser's state, and one that the wanted optimiser can go on from.
    fn check_carried(&self, source: &Source, wanted: Option<Optimizer>) -> Result<()> {
        let Some(stage) = source.stage() else { return Ok(()) };
        let Some(own) = self.optimizer(source) else {
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

    fn tokenizer(&self, source: &Source) -> Result<Option<(usize, usize)>> {
        Ok(match source.path(self.watch)? {
            None => source.stage().and_then(|name| self.tokenizers.get(name).copied()),
            Some(path) => {
                let tokenizer = Tokenizer::load(path)?;
                Some((tokenizer.model_vocab_size(), tokenizer.sentinels().len()))
            }
        })
    }

    fn model(&self, source: &Source) -> Result<Option<T5Config>> {
        Ok(match source.path(self.watch)? {
            None => source.stage().and_then(|name| self.models.get(name).cloned()),
            Some(path) => Some(T5Config::of_checkpoint(&Checkpoint::open(&path)?)?),
        })
    }
}
