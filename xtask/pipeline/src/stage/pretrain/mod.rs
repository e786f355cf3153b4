//! Pretrains a model, from random weights or from a checkpoint.

mod beginning;
mod measured;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use fusion_core::checkpoint::Checkpoint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use t5_model::train::{Outcome, Quality, Run, Settings, train};
use t5_model::{T5Config, initialize, parameter_table, training_flops_per_token};
use toml::Spanned;

use super::budget::BudgetKey;
use super::examples::{self, Examples};
use super::text::{Data, HeldOut, Reading, is_usual};
use super::texts;
use super::{
    Arm, Budget, DataTable, Dimensions, Effects, Finished, Forecast, Gives, Input, Keys, Kind, Known,
    Overview, Published, Shown, Spent, Training, Vocabulary, Work,
};
use crate::checkpoint::load_tokenizer;
use crate::numbers::rounds_to;
use crate::recipe::schema::both;
use crate::{Compute, Interrupted, Note, Stoppable, Warning, Watch};

use self::beginning::Beginning;
pub use measured::{Logged, Measured};

/// A pretraining run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pretrain {
    /// Random weights or those of a checkpoint.
    pub start: Start,
    /// The text to train on, and the text held out to evaluate on.
    pub data: Data,
    /// What it may cost, if the number of steps follows from that; then that of the settings means nothing.
    #[serde(skip)]
    pub budget: Option<Budget>,
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
    #[serde(flatten)]
    pub quality: Quality,
}

/// Settings that make no difference to a finished training, or only in the last bits of its weights.
const NEUTRAL: &[&str] =
    &["checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "log_every", "micro_batch_size"];

/// A text of its own to evaluate on is only measured with.
const MEASURING_TEXT: &[&str] = &["evaluate_every", "evaluation_batches", "data.held_out.text"];

/// `pretrain`, which gives a model and can take part in a comparison.
pub const KIND: Kind = Kind {
    name: "pretrain",
    about: "Pretrains a model on text, from random weights or from another model.",
    gives: Some(Gives::Model),
    output: "model",
    table: Some("pretraining"),
    keys: both::<OwnKeys, Settings>,
    computes: true,
    together: true,
    read,
    show,
    arm: Some(arm),
};

#[derive(Deserialize, JsonSchema)]
struct OwnKeys {
    /// Start with random weights: a model of `[models]`, by its name.
    #[schemars(with = "Option<String>")]
    model: Option<Spanned<String>>,
    /// Start from a model: a stage, a checkpoint's directory, or `hf:ORG/NAME[@REVISION]`.
    #[schemars(with = "Option<String>")]
    from: Option<Spanned<String>>,
    /// Instead of `steps`: train until all training behind the model, each of its parents' counted once, has
    /// cost as much as a stage's.
    ///
    /// A stage's name, `{ of = "STAGE", share = 0.6 }` for a share of its computation, or a number of FLOP. It
    /// gives the most steps that do not exceed this, over which the schedule decays.
    #[schemars(with = "Option<BudgetKey>")]
    computation: Option<Spanned<BudgetKey>>,
    /// Overrides keys of `[data]`, such as `data.text`, for this stage.
    #[schemars(with = "Option<DataTable>")]
    #[expect(dead_code, reason = "read with `[data]`")]
    data: Option<()>,
    /// What others have measured of such a model: a `source`, and any of `loss`, `accuracy` (in percent) and `glue` (the
    /// average over tasks). Plans show it, and reports beside what was measured here.
    #[schemars(with = "Option<Published>")]
    #[expect(dead_code, reason = "read for all kinds alike")]
    published: Option<()>,
}

fn read(keys: &mut Keys<'_>) -> Result<Arc<dyn Work>> {
    let data = keys.data()?;
    let both = keys.has("steps") && keys.has("computation");
    let OwnKeys { model, from, computation, .. } = keys.own()?;
    let start = match (model, from) {
        (Some(model), None) => Start::Random(keys.dimensions(&model)?),
        (None, Some(from)) => Start::Model(keys.input(from, Gives::Model)?),
        _ => {
            let message = "a pretraining has either a `model` with random weights or a model to start `from`";
            return Err(keys.error(message));
        }
    };
    if let Some(computation) = computation.as_ref().filter(|_| both) {
        let message = "a pretraining has either a number of `steps` or a `computation` from which it follows";
        return Err(keys.error_at(computation.span(), message));
    }
    let budget = computation.map(|computation| BudgetKey::read(computation, keys)).transpose()?;
    let data = keys.tokenized(data)?;
    let mut settings: Settings = keys.rest()?;
    if budget.is_none() {
        settings = complete(settings);
    }
    settings.validate().map_err(|error| keys.error(error))?;
    if settings.carry_optimizer && matches!(start, Start::Random(_)) {
        let message =
            "`carry_optimizer` needs a model to start `from`; random weights have no optimiser's state";
        return Err(keys.error(message));
    }
    Ok(Arc::new(Pretrain { start, data, budget, settings }))
}

/// What follows from other settings is recorded as if it had been given.
fn complete(mut settings: Settings) -> Settings {
    settings.schedule.warm_up = Some(settings.schedule.warm_up(settings.steps));
    settings
}

fn show(finished: &Finished<'_>) -> Result<Shown> {
    let Trained { parameters, steps, tokens, quality, .. } = finished.result()?;
    let overview = Overview {
        parameters: Some(parameters),
        steps: Some(steps),
        tokens: Some(tokens),
        quality: Some(quality),
    };
    Ok(Shown { overview, examples: Examples::read(finished.directory)?, ..Shown::default() })
}

/// The result of a training that ran by itself, which no `stage.json` tells; `None` if it has not finished.
///
/// # Errors
/// If its metrics or its model cannot be read.
pub fn trained_in(directory: &Path) -> Result<Option<Trained>> {
    let model = directory.join(KIND.output);
    let Some(last) = Measured::read(directory)?.evaluations.pop().filter(|_| model.is_dir()) else {
        return Ok(None);
    };
    let checkpoint = Checkpoint::open(&model)?;
    let lineage = checkpoint.lineage()?.unwrap_or_default();
    Ok(Some(Trained {
        parameters: parameter_table(&T5Config::of_checkpoint(&checkpoint)?)?.parameter_count(),
        steps: last.step,
        tokens: last.tokens,
        flops: last.flops,
        total_flops: lineage.total_flops(),
        quality: last.quality,
    }))
}

fn arm(finished: &Finished<'_>) -> Result<Arm> {
    let trained: Trained = finished.result()?;
    let Measured { evaluations, .. } = Measured::read(finished.directory)?;
    let parents_flops = trained.total_flops - trained.flops;
    let seed_set = finished.seed_set.cloned();
    Ok(Arm { name: finished.name.to_owned(), seed_set, parents_flops, evaluations })
}

impl Work for Pretrain {
    fn effects(&self) -> Effects {
        Effects {
            neutral: NEUTRAL,
            measuring: match self.data.held_out {
                HeldOut::Every(_) => Settings::MEASURING,
                HeldOut::Text(_) => MEASURING_TEXT,
            },
            keeping: &["keep_optimizer", "keep_steps"],
            extending: &[],
        }
    }

    fn inputs(&self) -> Vec<&Input> {
        self.from().into_iter().chain([&self.data.tokenizer]).collect()
    }

    fn reads(&self) -> Vec<Reading<'_>> {
        let trained = (self.settings.steps > 0 || self.budget.is_some()).then(|| self.data.trained());
        trained.into_iter().chain([self.data.evaluated()]).collect()
    }

    fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    fn with_steps(&self, steps: u64) -> Option<Arc<dyn Work>> {
        self.budget.as_ref()?;
        let settings = complete(Settings { steps, ..self.settings.clone() });
        Some(Arc::new(Pretrain { settings, budget: None, ..self.clone() }))
    }

    fn keep_steps(&self, steps: &BTreeSet<u64>) -> Option<Arc<dyn Work>> {
        let keep_steps = self.settings.keep_steps.iter().chain(steps).copied().collect::<BTreeSet<_>>();
        let settings = Settings { keep_steps: keep_steps.into_iter().collect(), ..self.settings.clone() };
        Some(Arc::new(Pretrain { settings, ..self.clone() }))
    }

    fn seed(&self) -> Option<u64> {
        Some(self.settings.seed)
    }

    fn with_seed(&self, seed: u64) -> Option<Arc<dyn Work>> {
        Some(Arc::new(Pretrain { settings: Settings { seed, ..self.settings.clone() }, ..self.clone() }))
    }

    fn forecast(&self, known: &Known<'_>) -> Result<Forecast> {
        let tokenizer = known.one_tokenizer(self.from().into_iter().chain([&self.data.tokenizer]))?;
        if let (true, Some(from)) = (self.settings.carry_optimizer, self.from()) {
            known.check_carried(from, Some(self.settings.optimizer))?;
        }
        let optimizer = self.settings.keep_optimizer.then_some(self.settings.optimizer);
        let vocabulary = known.vocabulary(&self.data.tokenizer)?;
        let (model, rows) = match &self.start {
            Start::Random(dimensions) => (None, dimensions.vocab_size),
            Start::Model(from) => {
                let model = known.model(from)?;
                let rows = model.as_ref().map(|model| model.vocab_size);
                (model, rows)
            }
        };
        let Some(vocabulary) = vocabulary.or(rows.map(Vocabulary::of_rows)) else {
            return Ok(Forecast { optimizer, tokenizer, ..Forecast::default() });
        };
        let (mut stated_parameters, mut warnings) = (None, Vec::new());
        let model = match &self.start {
            Start::Random(dimensions) => {
                let config = dimensions.config(&vocabulary)?;
                stated_parameters = dimensions.parameters;
                if let Some(said) = stated_parameters {
                    let found = parameter_table(&config)?.parameter_count();
                    let differs =
                        Some(Warning::Parameters { said, found }).filter(|_| !rounds_to(found, said));
                    warnings.extend(differs);
                }
                Some(config)
            }
            Start::Model(_) => model,
        };
        let lengths = self.data.lengths(vocabulary.sentinels)?;
        let tokens = self.settings.batch_size as f64 * lengths.mean;
        let each = |model| training_flops_per_token(model, lengths.inputs, lengths.targets) * tokens;
        let each = model.as_ref().map(each);
        let behind = match self.from() {
            None => Some(Spent::default()),
            Some(from) => known.computation(from)?,
        };
        let steps = match &self.budget {
            None => self.settings.steps,
            Some(budget) => self.affordable(budget, known, behind.as_ref(), each)?,
        };
        let flops = each.map(|each| each * steps as f64);
        let computation = behind.zip(flops).map(|(mut computation, flops)| {
            computation.add(known.name.to_owned(), flops);
            computation
        });
        Ok(Forecast {
            optimizer,
            tokenizer,
            steps: Some(steps),
            tokens: Some(tokens * steps as f64),
            flops,
            computation,
            training: model.as_ref().map(|model| Training::new(model, &self.settings, lengths)),
            model,
            stated_parameters,
            warnings,
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
    /// The number of steps that a budget pays for, and that the other settings allow.
    fn affordable(
        &self,
        budget: &Budget,
        known: &Known<'_>,
        behind: Option<&Spent>,
        each: Option<f64>,
    ) -> Result<u64> {
        let from = || self.from().map_or(String::new(), ToString::to_string);
        let behind = behind.with_context(|| {
            format!("what the training of {} has cost is not known, so no number of steps follows from `computation`", from())
        })?;
        let each = each
            .context("what an update costs is not known, so no number of steps follows from `computation`")?;
        let steps = budget.steps(known, behind, each)?;
        complete(Settings { steps, ..self.settings.clone() }).validate()?;
        Ok(steps)
    }

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
        ensure!(self.budget.is_none(), "the number of steps does not follow from `computation` yet");
        self.settings.validate()?;
        let tokenizer = load_tokenizer(tokenizer)?;
        let beginning = Beginning::of(self, from, &tokenizer)?;
        beginning.beside.warnings.iter().for_each(|warning| watch.note(name, &Note::Warning(warning)));
        let text = self.data.open(tokenizer, watch)?;
        let Settings { seed, .. } = self.settings;
        let lengths = self.data.lengths(text.tokenizer().sentinels().len())?;
        let training = Training::new(&beginning.config, &self.settings, lengths);
        let memory = training.memory(compute.backend(), compute.how());
        for warning in memory.iter().flat_map(|memory| Warning::of_memory(memory, &compute.how().device)) {
            watch.note(name, &Note::Warning(&warning));
        }
        let micro_batch = self.settings.micro_batch_size();
        let mut open_session = |resumed: Option<&Path>| match (resumed, &beginning.checkpoint) {
            (Some(checkpoint), _) => Ok(compute.open(&beginning.config, &Checkpoint::open(checkpoint)?)?),
            (None, Some(checkpoint)) => Ok(compute.open(&beginning.config, checkpoint)?),
            (None, None) => {
                Ok(compute.open(&beginning.config, &initialize(&beginning.config, beginning.init, seed)?)?)
            }
        };
        let run = Run {
            directory,
            settings: &self.settings,
            config: &beginning.config,
            lineage: &beginning.lineage,
            carried: beginning.optimizer.as_ref(),
            tokenizer: text.tokenizer(),
            beside: &beginning.beside.files,
            identity: self.identity(&text.names(), compute),
            open_session: &mut open_session,
            open_training_text: &mut |at| text.training(micro_batch, seed, at),
            open_evaluation_text: &mut || text.evaluation(),
        };
        // As they are when they are first read.
        let control = compute.control(watch);
        let described = !control.writes() || directory.join(texts::FILE).exists();
        let texts = (!described).then(|| texts::describe(&text));
        let mut progress = watch.training(name, self.settings.steps);
        let stoppable = Stoppable::new(watch);
        let outcome = train(run, &mut |event| progress(&event), &control)?;
        drop(stoppable);
        if let Some(texts) = texts {
            texts::write(&texts, directory)?;
        }
        if !outcome.finished {
            let left = format!("step {} is saved in {}", outcome.step, outcome.checkpoint.display());
            return Err(Interrupted { left: Some(left), resumes: true }.into());
        }
        if control.writes() && !directory.join(examples::FILE).exists() {
            let mut session = compute.open(&beginning.config, &Checkpoint::open(&outcome.checkpoint)?)?;
            Examples::fill(session.as_mut(), &text)?.write(directory)?;
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
        let field = &self.data.text_field;
        let field = (!is_usual(field)).then(|| ("text_field".to_owned(), json!(field)));
        let init = match &self.start {
            Start::Random(Dimensions { init, .. }) if !init.is_t5() => Some(("init".to_owned(), json!(init))),
            _ => None,
        };
        let objective = &self.data.objective;
        let objective = (!objective.is_t5()).then(|| ("objective".to_owned(), json!(objective)));
        data.into_iter().chain(field).chain(init).chain(objective).chain(compute.identity()).collect()
    }

    fn trained(&self, beginning: &Beginning, outcome: &Outcome) -> Result<Trained> {
        let last = outcome.evaluations.last().context("the training has no evaluation")?;
        Ok(Trained {
            parameters: parameter_table(&beginning.config)?.parameter_count(),
            steps: outcome.step,
            tokens: outcome.tokens,
            flops: outcome.flops,
            total_flops: beginning.lineage.total_flops() + outcome.flops,
            quality: last.quality,
        })
    }
}
