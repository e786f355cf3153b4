//! What a stage will produce, as far as that is known before it runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use fusion_core::checkpoint::Checkpoint;
use glue_eval::FineTuneSettings;
use t5_model::optimizer::Optimizer;
use t5_model::text::{ExampleLengths, HoldOut, Tokenizer};
use t5_model::train::Settings;
use t5_model::{Backend, Computation, T5Config, TrainingMemory, TrainingSize};

use super::tokenizer::T5_SENTINELS;
use super::{Input, Spent};
use crate::checkpoint::{load_tokenizer, tokenizer_of};
use crate::problems::{Problems, causes};
use crate::{NotBuilt, Warning, Watch};

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
    /// Updates that it trains for.
    pub steps: Option<u64>,
    /// Input and target tokens that it trains on.
    pub tokens: Option<f64>,
    /// Floating-point operations, forward and backward.
    pub flops: Option<f64>,
    /// All training behind the model that it produces.
    pub computation: Option<Spent>,
    /// The training it does, if any.
    pub training: Option<Training>,
    /// The tokenizer that it produces, or that its model was trained with.
    pub tokenizer: Option<TokenizerId>,
    /// The text that its model was trained on, by this stage or those before it.
    pub trained_on: Vec<Read>,
    /// What the user should know before the stage runs.
    pub warnings: Vec<Warning>,
    /// Why it cannot run here: what it reads is not here. Said once, of the first stage that needs it.
    pub missing: Vec<String>,
    /// The number of parameters that its model is said to have.
    pub stated_parameters: Option<f64>,
}

impl Forecast {
    /// Notes what is missing as errors of the stage of this name.
    pub fn refuse_missing(&self, stage: &str, problems: &mut Problems) {
        for missing in &self.missing {
            problems.add(anyhow!("{missing}").context(format!("stage {stage:?} will fail")));
        }
    }
}

/// The vocabulary of a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vocabulary {
    /// The number of tokens.
    pub tokens: usize,
    /// Rows of an embedding for this vocabulary.
    pub size: usize,
    /// The number of tokens that stand for masked spans.
    pub sentinels: usize,
}

impl Vocabulary {
    /// That of a tokenizer.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let (tokens, size) = (tokenizer.vocab_size(), tokenizer.model_vocab_size());
        Vocabulary { tokens, size, sentinels: tokenizer.sentinels().len() }
    }

    /// That of a tokenizer which is not here, for a model with an embedding of so many rows: T5's, as far as its
    /// examples go.
    pub fn of_rows(rows: usize) -> Self {
        Vocabulary { tokens: rows, size: rows, sentinels: T5_SENTINELS }
    }
}

/// What tells tokenizers apart before they are trained.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerId {
    /// Trained by a stage, from this text to this vocabulary.
    Trained {
        /// The stage's name.
        stage: String,
        /// What it is trained on.
        text: Vec<String>,
        /// The number of tokens asked for.
        vocabulary: usize,
    },
    /// A tokenizer's fingerprint.
    Files(String),
}

impl TokenizerId {
    /// Whether both are known to differ.
    fn differs(&self, other: &TokenizerId) -> bool {
        use TokenizerId::{Files, Trained};
        match (self, other) {
            (
                Trained { stage, text, vocabulary },
                Trained { stage: other, text: other_text, vocabulary: other_vocabulary },
            ) => stage != other && (text, vocabulary) != (other_text, other_vocabulary),
            (Files(own), Files(other)) => own != other,
            _ => false,
        }
    }
}

/// A part of a text, found.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// In the text's order.
    pub files: Arc<[TextFile]>,
    /// The documents of it; all of them if `None`.
    pub hold_out: Option<HoldOut>,
}

/// A file of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextFile {
    /// Its name in messages.
    pub name: String,
    /// Its canonical path, unless the text is built in.
    pub path: Option<PathBuf>,
    /// Its size in bytes.
    pub length: Option<u64>,
}

/// What determines the memory that training takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The model to train.
    pub config: T5Config,
    /// Examples on the device at a time.
    pub examples: usize,
    /// Tokens per input.
    pub inputs: usize,
    /// Tokens per target.
    pub targets: usize,
    /// Determines the size of the state kept for each parameter.
    pub optimizer: Optimizer,
    /// The dropout rate; memory depends only on whether it is 0.
    pub dropout: f64,
}

impl Training {
    /// Fine-tuning with these settings.
    pub fn of_fine_tuning(config: &T5Config, settings: &FineTuneSettings) -> Self {
        Training {
            config: config.clone(),
            examples: settings.micro_batch_size.min(settings.batch_size),
            inputs: settings.input_length,
            targets: settings.target_length,
            optimizer: settings.optimizer,
            dropout: settings.dropout,
        }
    }

    /// Training with these settings on inputs and targets of up to these lengths.
    pub fn new(config: &T5Config, settings: &Settings, lengths: ExampleLengths) -> Self {
        Training {
            config: config.clone(),
            examples: settings.micro_batch_size(),
            inputs: lengths.inputs,
            targets: lengths.targets,
            optimizer: settings.optimizer,
            dropout: settings.dropout,
        }
    }

    /// The memory that training takes on this backend, where it can be estimated.
    pub fn memory(&self, backend: &dyn Backend, how: &Computation) -> Option<TrainingMemory> {
        let Training { config, examples, inputs, targets, optimizer, dropout } = self;
        let size = TrainingSize {
            config,
            examples: *examples,
            input_length: *inputs,
            target_length: *targets,
            optimizer: *optimizer,
            dropout: *dropout > 0.0,
        };
        backend.training_memory(how, &size)
    }
}

/// What is known of inputs while forecasting: files, and results of stages that need not have run.
pub struct Known<'a> {
    /// The stage that is being forecast.
    pub name: &'a str,
    /// Follows the fetching of inputs that are not on this machine.
    pub watch: &'a dyn Watch,
    /// The stage's result, if it has finished.
    pub result: Option<PathBuf>,
    /// The stages so far that will not fail.
    pub stages: Vec<(&'a str, Forecast)>,
    /// Models and tokenizers that cannot be fetched, with the reasons.
    pub unreachable: RefCell<BTreeMap<String, String>>,
}

impl<'a> Known<'a> {
    /// Nothing is known yet.
    pub fn nothing(watch: &'a dyn Watch) -> Self {
        Known { name: "", watch, result: None, stages: Vec::new(), unreachable: RefCell::default() }
    }

    fn stage(&self, input: &Input) -> Option<&Forecast> {
        self.stages.iter().find(|(name, _)| input.stage() == Some(name)).map(|(_, forecast)| forecast)
    }

    /// The path of an input that is not another stage's result; `None` if it cannot be fetched.
    pub fn path(&self, input: &Input) -> Result<Option<PathBuf>> {
        let name = input.to_string();
        if self.unreachable.borrow().contains_key(&name) {
            return Ok(None);
        }
        match input.path(self.watch) {
            Err(error) if matches!(input, Input::Hub(_)) && !error.is::<NotBuilt>() => {
                self.unreachable.borrow_mut().insert(name, causes(&error));
                Ok(None)
            }
            found => found,
        }
    }

    /// The vocabulary of a tokenizer; `None` if it is not known yet.
    pub fn vocabulary(&self, input: &Input) -> Result<Option<Vocabulary>> {
        Ok(match self.path(input)? {
            None => self.stage(input).and_then(|forecast| forecast.vocabulary),
            Some(path) => Some(Vocabulary::of(&load_tokenizer(&path)?)),
        })
    }

    /// The tokenizer that an input is, or was trained with; `None` if it is not known.
    pub fn tokenizer(&self, input: &Input) -> Result<Option<TokenizerId>> {
        let Some(path) = self.path(input)? else {
            return Ok(self.stage(input).and_then(|forecast| forecast.tokenizer.clone()));
        };
        let own = match path.is_dir() {
            true => tokenizer_of(&path)?,
            false => Some(load_tokenizer(&path)?),
        };
        Ok(own.map(|own| TokenizerId::Files(own.fingerprint().to_owned())))
    }

    /// Checks that inputs have, or are, one tokenizer, as far as that is known. Returns it.
    pub fn one_tokenizer<'b>(
        &self,
        inputs: impl IntoIterator<Item = &'b Input>,
    ) -> Result<Option<TokenizerId>> {
        let mut first: Option<(&Input, TokenizerId)> = None;
        for input in inputs {
            let Some(own) = self.tokenizer(input)? else { continue };
            match &first {
                None => first = Some((input, own)),
                Some((other, known)) if known.differs(&own) => bail!(
                    "{other} and {input} have different tokenizers: their token ids mean different things"
                ),
                Some(_) => {}
            }
        }
        Ok(first.map(|(_, own)| own))
    }

    /// The configuration of a model; `None` if it is not known yet.
    pub fn model(&self, input: &Input) -> Result<Option<T5Config>> {
        Ok(match self.path(input)? {
            None => self.stage(input).and_then(|forecast| forecast.model.clone()),
            Some(path) => Some(T5Config::open(&path)?.1),
        })
    }

    /// All training behind a model; `None` if it is not known.
    pub fn computation(&self, input: &Input) -> Result<Option<Spent>> {
        let Some(path) = self.path(input)? else {
            let Some(forecast) = self.stage(input) else { return Ok(None) };
            let Some(computation) = forecast.computation.clone() else { return Ok(None) };
            return Ok(match (input, forecast.flops.zip(forecast.steps)) {
                (Input::Step { stage, step }, Some((flops, steps))) => {
                    let share = *step as f64 / steps.max(1) as f64;
                    Some(computation.with_part(stage, share * flops))
                }
                (Input::Step { .. }, None) => None,
                _ => Some(computation),
            });
        };
        let Some(lineage) = Checkpoint::open(&path)?.history()?.known() else { return Ok(None) };
        let mut spent = Spent::default();
        for (stretch, flops) in lineage.stretches() {
            // Without a hash, its place in the tree is its name.
            let name =
                if stretch.starts_with("model ") { format!("{stretch} {}", path.display()) } else { stretch };
            spent.add(name, flops);
        }
        Ok(Some(spent))
    }

    /// Checks that a stage's training comes to the step at which an input is taken.
    pub fn check_reached(&self, input: &Input) -> Result<()> {
        let steps = self.stage(input).and_then(|forecast| forecast.steps);
        match (input, steps) {
            (Input::Step { stage, step }, Some(steps)) if *step > steps => {
                bail!("there is no {input}: stage {stage:?} ends after {steps} steps")
            }
            _ => Ok(()),
        }
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
