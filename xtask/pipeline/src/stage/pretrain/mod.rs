//! Pretraining, from random weights or from a checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fusion_core::checkpoint::Checkpoint;
use fusion_core::lineage::Lineage;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use t5_model::optimizer::OptimizerState;
use t5_model::text::{SpanLengths, Tokenizer};
use t5_model::train::{Outcome, Run, Settings, train};
use t5_model::{FeedForward, Precision, T5Config, initialize, parameter_table};

use super::Source;
use super::text::Data;
use crate::checkpoint::tokenizer_of;
use crate::run::forecast::Training;
use crate::{Compute, Interrupted, Note, Stoppable, Watch};

/// A pretraining.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pretrain {
    pub start: Start,
    pub data: Data,
    #[serde(flatten)]
    pub settings: Settings,
}

/// What training starts from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Random weights, drawn from the settings' seed.
    Random(Dimensions),
    Model(Source),
}

/// A new T5, in the words of Hugging Face's `config.json`. The vocabulary is the tokenizer's.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dimensions {
    pub d_model: usize,
    pub num_heads: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    /// Of the encoder, and of the decoder if it has no number of its own.
    pub num_layers: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_decoder_layers: Option<usize>,
    #[serde(default = "gated_gelu")]
    pub feed_forward_proj: FeedForward,
    #[serde(default)]
    pub tie_word_embeddings: bool,
}

fn gated_gelu() -> FeedForward {
    FeedForward::GatedGelu
}

impl Dimensions {
    /// A T5 of these dimensions with so many rows in its embedding.
    pub fn config(&self, vocabulary: usize) -> Result<T5Config> {
        let mut config =
            T5Config::v1_1(vocabulary, self.d_model, self.num_heads, self.d_kv, self.d_ff, self.num_layers);
        config.set_num_decoder_layers(self.num_decoder_layers.unwrap_or(self.num_layers));
        config.feed_forward_proj = self.feed_forward_proj;
        config.tie_word_embeddings = self.tie_word_embeddings;
        config.validate()?;
        Ok(config)
    }
}

/// What a finished pretraining came to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Trained {
    pub parameters: u64,
    pub steps: u64,
    /// Input and target tokens.
    pub tokens: u64,
    /// Floating-point operations of this stage.
    pub flops: f64,
    /// The same with all of the model's ancestors.
    pub total_flops: f64,
    /// On held-out text, at the end.
    pub loss: f64,
    pub accuracy: f64,
}

/// The model a training starts from.
struct Beginning {
    config: T5Config,
    lineage: Lineage,
    checkpoint: Option<Checkpoint>,
    /// Beside the checkpoint, if training goes on with it.
    optimizer: Option<OptimizerState>,
}

impl Pretrain {
    /// Trains in `directory`, or goes on where an earlier run there stopped. `from` is the checkpoint of
    /// [`Start::Model`].
    pub fn run(
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
        let text = self.data.open(tokenizer)?;
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

    /// What decides the weights besides settings, model and tokenizer.
    fn identity(
        &self,
        (training, evaluation): &(Vec<String>, Vec<String>),
        compute: &Compute,
    ) -> BTreeMap<String, Value> {
        let mut identity = BTreeMap::from([
            ("text".to_owned(), json!(training)),
            ("held-out text".to_owned(), json!(evaluation)),
            ("held out".to_owned(), json!(self.data.held_out)),
            ("input_length".to_owned(), json!(self.data.input_length)),
            ("max_documents".to_owned(), json!(self.data.max_documents)),
        ]);
        // f32 goes without saying: there were runs before there was anything else.
        let precision = compute.how().precision;
        if precision != Precision::default() {
            identity.insert("precision".to_owned(), json!(precision));
        }
        identity
    }

    fn beginning(&self, from: Option<&Path>, tokenizer: &Tokenizer) -> Result<Beginning> {
        let (directory, checkpoint) = match (&self.start, from) {
            (Start::Random(dimensions), _) => {
                let config = dimensions.config(tokenizer.model_vocab_size())?;
                let lineage = Lineage::default();
                return Ok(Beginning { config, lineage, checkpoint: None, optimizer: None });
            }
            (Start::Model(Source::Path(path)), None) => (path.as_path(), Checkpoint::open(path)?),
            (Start::Model(source), None) => anyhow::bail!("the model of stage {source} is not known"),
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
        let blake3 = checkpoint.blake3()?;
        let optimizer = match self.settings.carry_optimizer {
            true => Some(self.optimizer_state(directory, &blake3, &config)?),
            false => None,
        };
        let blake3 = Some(blake3);
        let lineage = checkpoint.lineage().with_context(|| format!("{place}"))?;
        let own = lineage.filter(|lineage| lineage.blake3.is_none() || lineage.blake3 == blake3);
        let lineage = Lineage { blake3, ..own.unwrap_or_default() };
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
