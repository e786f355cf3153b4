//! Pretrains a model, from random weights or from a checkpoint.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use fusion_core::checkpoint::Checkpoint;
use fusion_core::lineage::Lineage;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use t5_model::optimizer::OptimizerState;
use t5_model::text::{SpanLengths, Tokenizer};
use t5_model::train::{Metrics, Outcome, Run, Settings, read_metrics, train};
use t5_model::{T5Config, initialize, parameter_table, training_flops_per_token};
use toml::Spanned;

use super::text::Data;
use super::{
    Arm, Dimensions, Finished, Forecast, Gives, Input, Keys, Kind, Known, Overview, Shown, Training, Work,
};
use crate::checkpoint::{lineage_to_continue, tokenizer_of};
use crate::{Compute, Interrupted, Note, Stoppable, Watch};

/// A pretraining run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pretrain {
    /// Random weights or those of a checkpoint.
    pub start: Start,
    /// The text to train on, and the text held out to evaluate on.
    pub data: Data,
    /// Steps, batch size, optimiser and all else that governs training.
    #[serde(flatten)]
    pub settings: Settings,
}

/// What training starts from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Random weights, drawn with the settings' seed.
    Random(Dimensions),
    /// The weights of a checkpoint.
    Model(Input),
}

/// The result of a finished pretraining run.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Trained {
    /// Parameters of the trained model.
    pub parameters: u64,
    /// Optimiser steps of this stage, including those before an interruption.
    pub steps: u64,
    /// Input and target tokens.
    pub tokens: u64,
    /// Floating-point operations of this stage.
    pub flops: f64,
    /// The same including all of the model's ancestors.
    pub total_flops: f64,
    /// On held-out text, at the end.
    pub loss: f64,
    /// Share of held-out target tokens predicted correctly, at the end.
    pub accuracy: f64,
}

/// The model that training starts from.
struct Beginning {
    config: T5Config,
    lineage: Lineage,
    checkpoint: Option<Checkpoint>,
    /// Stored with the checkpoint, if training continues with it.
    optimizer: Option<OptimizerState>,
}

/// `pretrain`, which gives a model and can take part in a comparison.
pub const KIND: Kind = Kind {
    name: "pretrain",
    gives: Some(Gives::Model),
    output: "model",
    table: Some("pretraining"),
    read,
    show,
    arm: Some(arm),
};

fn read(keys: &mut Keys<'_>) -> Result<Arc<dyn Work>> {
    let data = keys.data()?;
    let model: Option<Spanned<String>> = keys.take("model")?;
    let from: Option<Spanned<String>> = keys.take("from")?;
    let start = match (model, from) {
        (Some(model), None) => Start::Random(keys.dimensions(&model)?),
        (None, Some(from)) => Start::Model(keys.input(from, Gives::Model)?),
        _ => {
            let message = "a pretraining has either a `model` with random weights or a model to start `from`";
            return Err(keys.error(message));
        }
    };
    let data = keys.tokenized(data)?;
    let settings: Settings = keys.rest()?;
    settings.validate().map_err(|error| keys.error(error))?;
    if settings.carry_optimizer && matches!(start, Start::Random(_)) {
        let message =
            "`carry_optimizer` needs a model to start `from`; random weights have no optimiser's state";
        return Err(keys.error(message));
    }
    Ok(Arc::new(Pretrain { start, data, settings }))
}

fn show(finished: &Finished<'_>) -> Result<Shown> {
    let Trained { parameters, steps, tokens, loss, accuracy, .. } = finished.result()?;
    let overview = Overview {
        parameters: Some(parameters),
        steps: Some(steps),
        tokens: Some(tokens),
        loss: Some(loss),
        accuracy: Some(accuracy),
    };
    Ok(Shown { overview, ..Shown::default() })
}

fn arm(finished: &Finished<'_>) -> Result<Arm> {
    let trained: Trained = finished.result()?;
    let point = |metrics: Metrics| match metrics {
        Metrics::Evaluation(point) => Some(point),
        Metrics::Train { .. } => None,
    };
    let evaluations = read_metrics(finished.directory)?.into_iter().filter_map(point).collect();
    let parents_flops = trained.total_flops - trained.flops;
    Ok(Arm { name: finished.name.to_owned(), parents_flops, evaluations })
}

impl Work for Pretrain {
    fn neutral(&self) -> &'static [&'static str] {
        Settings::NEUTRAL
    }

    fn inputs(&self) -> Vec<&Input> {
        self.from().into_iter().chain([&self.data.tokenizer]).collect()
    }

    fn forecast(&self, known: &Known<'_>) -> Result<Forecast> {
        if let (true, Some(from)) = (self.settings.carry_optimizer, self.from()) {
            known.check_carried(from, Some(self.settings.optimizer))?;
        }
        let optimizer = self.settings.keep_optimizer.then_some(self.settings.optimizer);
        let Some(vocabulary) = known.vocabulary(&self.data.tokenizer)? else {
            return Ok(Forecast { optimizer, ..Forecast::default() });
        };
        let model = match &self.start {
            Start::Random(dimensions) => Some(dimensions.config(vocabulary.size)?),
            Start::Model(from) => known.model(from)?,
        };
        let lengths = SpanLengths::t5(self.data.input_length, vocabulary.sentinels)?;
        let examples = self.settings.steps as f64 * self.settings.batch_size as f64;
        let tokens = examples * (lengths.inputs + lengths.targets) as f64;
        let each = |model| training_flops_per_token(model, lengths.inputs, lengths.targets);
        Ok(Forecast {
            optimizer,
            tokens: Some(tokens),
            flops: model.as_ref().map(|model| each(model) * tokens),
            training: model.as_ref().map(|model| Training::new(model, &self.settings, lengths)),
            model,
            ..Forecast::default()
        })
    }

    fn run(&self, context: &super::Context<'_>) -> Result<Value> {
        let from = self.from().map(|from| context.locate(from)).transpose()?;
        let tokenizer = context.locate(&self.data.tokenizer)?;
        let super::Context { name, directory, compute, watch, .. } = *context;
        let trained = self.train(from.as_deref(), &tokenizer, directory, compute, name, watch)?;
        Ok(serde_json::to_value(trained)?)
    }
}

impl Pretrain {
    /// The checkpoint it starts from, if any.
    fn from(&self) -> Option<&Input> {
        match &self.start {
            Start::Random(_) => None,
            Start::Model(input) => Some(input),
        }
    }

    /// Trains in `directory`, or resumes where an earlier run there stopped. `from` is the checkpoint of
    /// [`Start::Model`].
    pub fn train(
        &self,
        from: Option<&Path>,
        tokenizer: &Path,
        directory: &Path,
        compute: &Compute,
        name: &str,
        watch: &dyn Watch,
    ) -> Result<Trained> {
        self.settings.validate()?;
        let tokenizer = Tokenizer::load(tokenizer)?;
        let beginning = self.beginning(from, &tokenizer)?;
        let text = self.data.open(tokenizer, watch)?;
        let Settings { seed, .. } = self.settings;
        let lengths = SpanLengths::t5(self.data.input_length, text.tokenizer().sentinels().len())?;
        let training = Training::new(&beginning.config, &self.settings, lengths);
        let memory = training.memory(compute.backend(), compute.how());
        if let Some(warning) = memory.and_then(|memory| training.warning(&memory, &compute.how().device)) {
            watch.note(name, &Note::Warning(&warning));
        }
        let micro_batch = self.settings.micro_batch_size();
        let mut open_session = |resumed: Option<&Path>| match (resumed, &beginning.checkpoint) {
            (Some(checkpoint), _) => Ok(compute.open(&beginning.config, &Checkpoint::open(checkpoint)?)?),
            (None, Some(checkpoint)) => Ok(compute.open(&beginning.config, checkpoint)?),
            (None, None) => Ok(compute.open(&beginning.config, &initialize(&beginning.config, seed)?)?),
        };
        let run = Run {
            directory,
            settings: &self.settings,
            config: &beginning.config,
            lineage: &beginning.lineage,
            carried: beginning.optimizer.as_ref(),
            tokenizer: text.tokenizer(),
            identity: self.identity(&text.names(), compute),
            open_session: &mut open_session,
            open_training_text: &mut |at| text.training(micro_batch, seed, at),
            open_evaluation_text: &mut || text.evaluation(micro_batch),
        };
        let mut progress = watch.training(name, self.settings.steps);
        let stoppable = Stoppable::new(watch);
        let outcome = train(run, &mut |event| progress(&event), watch.stop())?;
        drop(stoppable);
        if !outcome.finished {
            let left = format!("step {} is saved in {}", outcome.step, outcome.checkpoint.display());
            return Err(Interrupted { left: Some(left), resumes: true }.into());
        }
        self.trained(&beginning, &outcome)
    }

    /// What determines the weights besides settings, model and tokenizer.
    fn identity(
        &self,
        (training, evaluation): &(Vec<String>, Vec<String>),
        compute: &Compute,
    ) -> BTreeMap<String, Value> {
        let data = [
            ("text".to_owned(), json!(training)),
            ("held-out text".to_owned(), json!(evaluation)),
            ("held out".to_owned(), json!(self.data.held_out)),
            ("input_length".to_owned(), json!(self.data.input_length)),
            ("max_documents".to_owned(), json!(self.data.max_documents)),
        ];
        data.into_iter().chain(compute.identity()).collect()
    }

    fn beginning(&self, from: Option<&Path>, tokenizer: &Tokenizer) -> Result<Beginning> {
        let (directory, checkpoint) = match (&self.start, from) {
            (Start::Random(dimensions), _) => {
                let config = dimensions.config(tokenizer.model_vocab_size())?;
                let lineage = Lineage::default();
                return Ok(Beginning { config, lineage, checkpoint: None, optimizer: None });
            }
            (Start::Model(Input::Path(path)), None) => (path.as_path(), Checkpoint::open(path)?),
            (Start::Model(input), None) => anyhow::bail!("the model of stage {input} is not known"),
            (Start::Model(_), Some(path)) => (path, Checkpoint::open(path)?),
        };
        let config = T5Config::of_checkpoint(&checkpoint)?;
        let place = directory.display();
        if let Some(own) = tokenizer_of(directory)? {
            ensure!(
                own.fingerprint() == tokenizer.fingerprint(),
                "{place} was trained with another tokenizer than the one given"
            );
        }
        ensure!(
            tokenizer.vocab_size() <= config.vocab_size,
            "the tokenizer has {} tokens, but the model in {place} only {}",
            tokenizer.vocab_size(),
            config.vocab_size
        );
        let optimizer = match self.settings.carry_optimizer {
            true => Some(self.optimizer_state(directory, &checkpoint.blake3()?, &config)?),
            false => None,
        };
        let lineage = lineage_to_continue(&checkpoint)?;
        Ok(Beginning { config, lineage, checkpoint: Some(checkpoint), optimizer })
    }

    fn optimizer_state(&self, directory: &Path, weights: &str, config: &T5Config) -> Result<OptimizerState> {
        let state = OptimizerState::open(directory, weights)?;
        state.check(&self.settings.optimizer, &parameter_table(config)?)?;
        Ok(state)
    }

    fn trained(&self, beginning: &Beginning, outcome: &Outcome) -> Result<Trained> {
        let last = outcome.evaluations.last().context("the training has no evaluation")?;
        Ok(Trained {
            parameters: parameter_table(&beginning.config)?.parameter_count(),
            steps: outcome.step,
            tokens: outcome.tokens,
            flops: outcome.flops,
            total_flops: beginning.lineage.total_flops() + outcome.flops,
            loss: last.loss,
            accuracy: last.accuracy,
        })
    }
}
