use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use pipeline::source::{ModelPlace, corpus};
use pipeline::stage::pretrain::{Pretrain, Start};
use pipeline::stage::text::{Data, HeldOut};
use pipeline::stage::{Dimensions, Input};
use t5_model::train::Settings;
use t5_model::{Decay, FeedForward, Optimizer, Schedule};

use crate::cli::compute::ComputeArguments;
use crate::terminal::output::print;
use crate::terminal::{Terminal, interrupt};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask pretrain --d-model 256 --num-heads 4 --d-kv 64 --d-ff 512 --num-layers 4 \\\n",
    "      --text texts --held-out-every 100 --tokenizer spiece.model --steps 10000 --output small\n",
    "  cargo xtask pretrain --from fused --text texts --held-out-every 100 --steps 10000 --output large",
);

/// Pretrain a T5 by span corruption, from random weights or from a checkpoint
///
/// Writes the finished model to OUTPUT/model, and as it goes checkpoints, metrics.jsonl and TensorBoard events. The
/// same command goes on where an interrupted one stopped. Without --from, the dimensions are those of a new T5 1.1.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Where the run lives
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The checkpoint to start from, or `hf:ORG/NAME[@REVISION]`
    #[arg(long, value_name = "MODEL", conflicts_with = "NewModel")]
    from: Option<ModelPlace>,
    #[command(flatten)]
    new: Option<NewModel>,
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    training: TrainingArguments,
    #[command(flatten)]
    compute: ComputeArguments,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "A new model")]
#[group(multiple = true, requires_all = ["d_model", "num_heads", "d_kv", "d_ff", "num_layers"])]
struct NewModel {
    /// Width of the model
    #[arg(long, value_name = "N", required = false)]
    d_model: usize,
    /// Attention heads
    #[arg(long, value_name = "N", required = false)]
    num_heads: usize,
    /// Width of a head
    #[arg(long, value_name = "N", required = false)]
    d_kv: usize,
    /// Hidden width of the MLP
    #[arg(long, value_name = "N", required = false)]
    d_ff: usize,
    /// Layers of the encoder, and as many of the decoder
    #[arg(long, value_name = "N", required = false)]
    num_layers: usize,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Text")]
struct TextArguments {
    /// Files, folders or globs (.json, .jsonl, .txt, also .gz or .zst), or builtin:webster
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    text: Vec<String>,
    /// Evaluate on this text
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with = "held_out_every")]
    held_out_text: Vec<String>,
    /// Evaluate on every k-th document of the text and do not train on it
    #[arg(long, value_name = "K", required_unless_present = "held_out_text")]
    held_out_every: Option<NonZeroU64>,
    /// A tokenizer.json, spiece.model or folder [default: that of --from]
    #[arg(long, value_name = "PATH", required_unless_present = "from")]
    tokenizer: Option<PathBuf>,
    /// Tokens of an input
    #[arg(long, value_name = "N", default_value_t = 512)]
    input_length: usize,
    /// Train on at most so many documents
    #[arg(long, value_name = "N")]
    max_documents: Option<u64>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Training")]
struct TrainingArguments {
    /// Updates of the weights
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps)]
    steps: u64,
    /// Examples in an update
    #[arg(long, value_name = "N", default_value_t = Settings::default().batch_size)]
    batch_size: usize,
    /// Examples on the device at once; divides the batch [default: the batch]
    #[arg(long, value_name = "N")]
    micro_batch_size: Option<usize>,
    /// The rule that turns gradients into updates
    #[arg(long, value_enum, default_value = "adamw-scale")]
    optimizer: OptimizerName,
    /// Go on from the optimiser's state that lies beside the weights of --from, counting its updates on
    #[arg(long, requires = "from")]
    carry_optimizer: bool,
    /// Save the optimiser's state with the finished model too, for `fuse --optimizer carry` or --carry-optimizer
    #[arg(long)]
    keep_optimizer: bool,
    /// The rate at the end of the warm-up
    #[arg(long, value_name = "RATE", default_value_t = 2e-2)]
    learning_rate: f64,
    /// How the rate falls after the warm-up
    #[arg(long, value_enum, default_value = "cosine")]
    schedule: DecayName,
    /// Updates during which the rate rises [default: a tenth of the steps]
    #[arg(long, value_name = "N")]
    warm_up: Option<u64>,
    /// Updates that the schedule counts as made before the first
    #[arg(long, value_name = "N", default_value_t = 0)]
    schedule_offset: u64,
    /// Updates from the first on during which the rate rises from 0 to what the schedule says
    #[arg(long, value_name = "N", default_value_t = 0)]
    re_warm_up: u64,
    /// The norm that all gradients together are scaled down to; 0 for none
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    clip_norm: f64,
    /// Factor of log(Z)² in the loss
    #[arg(long, value_name = "FACTOR", default_value_t = 0.0)]
    z_loss: f64,
    /// Rate of dropout; T5 pretrains without
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    dropout: f64,
    /// Seed of new weights, of the text's order and corruption, and of dropout
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Updates between two evaluations
    #[arg(long, value_name = "N", default_value_t = Settings::default().evaluate_every)]
    evaluate_every: u64,
    /// Batches of an evaluation
    #[arg(long, value_name = "N", default_value_t = Settings::default().evaluation_batches)]
    evaluation_batches: u64,
    /// Updates between two checkpoints
    #[arg(long, value_name = "N", default_value_t = Settings::default().checkpoint_every)]
    checkpoint_every: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OptimizerName {
    /// AdamW, as in PyTorch
    Adamw,
    /// nanoT5's AdamW, whose update is scaled by the weights' root mean square
    AdamwScale,
    /// T5's
    Adafactor,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DecayName {
    Constant,
    /// T5's
    InverseSquareRoot,
    /// To 1e-5, or the learning rate if that is lower
    Cosine,
    /// To 0
    Linear,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let stage = self.stage()?;
        let from = self.from.as_ref().map(|from| from.directory(&Terminal)).transpose()?;
        let tokenizer = self.text.tokenizer.clone().or_else(|| from.clone()).context("give a --tokenizer")?;
        let compute = self.compute.start()?;
        interrupt::listen()?;
        let trained =
            stage.train(from.as_deref(), &tokenizer, &self.output, &compute, "pretrain", &Terminal)?;
        let (model, accuracy) = (self.output.join("model"), 100.0 * trained.accuracy);
        print(&format!(
            "{}: step {}, held-out loss {:.4}, accuracy {accuracy:.2} %\n",
            model.display(),
            trained.steps,
            trained.loss
        ))
    }

    /// The stage that a recipe with these settings would have.
    fn stage(&self) -> Result<Pretrain> {
        let here = |texts: &[String]| -> Result<Vec<String>> {
            texts.iter().map(|text| corpus::absolute(Path::new(""), text)).collect()
        };
        let start = match (&self.from, &self.new) {
            (Some(from), _) => Start::Model(from.clone().into()),
            (None, Some(new)) => Start::Random(new.dimensions()),
            (None, None) => {
                bail!("give either --from or the dimensions of a new model (--d-model and so on)")
            }
        };
        let TextArguments { text, held_out_text, held_out_every, tokenizer, .. } = &self.text;
        let own = || self.from.clone().map(Input::from);
        let tokenizer = tokenizer.clone().map(Input::Path).or_else(own).context("give a --tokenizer")?;
        let data = Data {
            text: here(text)?,
            held_out: match held_out_every {
                Some(every) => HeldOut::Every(*every),
                None => HeldOut::Text(here(held_out_text)?),
            },
            tokenizer,
            input_length: self.text.input_length,
            max_documents: self.text.max_documents,
        };
        Ok(Pretrain { start, data, settings: self.training.settings() })
    }
}

impl NewModel {
    fn dimensions(&self) -> Dimensions {
        Dimensions {
            d_model: self.d_model,
            num_heads: self.num_heads,
            d_kv: self.d_kv,
            d_ff: self.d_ff,
            num_layers: self.num_layers,
            num_decoder_layers: None,
            feed_forward_proj: FeedForward::GatedGelu,
            tie_word_embeddings: false,
        }
    }
}

impl TrainingArguments {
    fn settings(&self) -> Settings {
        let decay = match self.schedule {
            DecayName::Constant => Decay::Constant,
            DecayName::InverseSquareRoot => Decay::InverseSquareRoot { offset: 10_000 },
            DecayName::Cosine => Decay::Cosine { minimum: 1e-5_f64.min(self.learning_rate) },
            DecayName::Linear => Decay::Linear { minimum: 0.0 },
        };
        Settings {
            steps: self.steps,
            batch_size: self.batch_size,
            micro_batch_size: self.micro_batch_size,
            optimizer: match self.optimizer {
                OptimizerName::Adamw => Optimizer::adamw(),
                OptimizerName::AdamwScale => Optimizer::adamw_scale(),
                OptimizerName::Adafactor => Optimizer::adafactor(),
            },
            carry_optimizer: self.carry_optimizer,
            keep_optimizer: self.keep_optimizer,
            schedule: Schedule {
                warm_up: self.warm_up.unwrap_or(self.steps / 10),
                decay,
                offset: self.schedule_offset,
                re_warm_up: self.re_warm_up,
                ..Schedule::constant(self.learning_rate)
            },
            clip_norm: Some(self.clip_norm),
            z_loss: self.z_loss,
            dropout: self.dropout,
            seed: self.seed,
            evaluate_every: self.evaluate_every,
            evaluation_batches: self.evaluation_batches,
            checkpoint_every: self.checkpoint_every,
            ..Settings::default()
        }
    }
}
