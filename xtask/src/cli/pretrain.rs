use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use pipeline::source::ModelPlace;
use pipeline::stage::pretrain::{Pretrain, Start};
use pipeline::stage::{Dimensions, Input};
use t5_model::optimizer::{DecayOptions, OptimizerOptions};
use t5_model::train::Settings;
use t5_model::{FeedForward, Initialization};

use crate::cli::compute::{ComputeArguments, GroupArguments};
use crate::cli::section::section;
use crate::cli::text::TextArguments;
use crate::terminal::output::print;
use crate::terminal::{Terminal, interrupt};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask pretrain --d-model 256 --num-heads 4 --d-kv 64 --d-ff 512 --num-layers 4 \\\n",
    "      --text texts --held-out-every 100 --tokenizer spiece.model --steps 10000 --output small\n",
    "  cargo xtask pretrain --from fused --text texts --held-out-every 100 --steps 10000 --output large",
);

/// The settings in the order in which the help lists them.
const TRAINING: &str = "steps batch_size micro_batch_size optimizer carry_optimizer keep_optimizer peak decay \
     decay_share decay_steps decay_shape minimum timescale warm_up warm_up_from cycles offset \
     re_warm_up clip_norm z_loss dropout seed evaluate_every evaluation_batches \
     checkpoint_every checkpoint_minutes keep_checkpoints keep_steps log_every";
/// The optimiser's own, which belong to some optimisers each.
const OPTIMIZER: &str =
    "weight_decay momentum beta1 beta2 epsilon decay_rate clip_threshold min_dim_size_to_factor";
const CARRY_OPTIMIZER: &str =
    "Continue from the optimiser state stored with the weights of --from, including its count of updates";
const KEEP_OPTIMIZER: &str = "Also save the optimiser state with the finished model, for `fuse --optimizer carry` or \
                              --carry-optimizer";

/// Pretrain a T5, from random weights or from a checkpoint
///
/// Writes checkpoints, metrics.jsonl and TensorBoard events to DIR during training, and the finished model to
/// DIR/model. To resume an interrupted run, run the same command again. Without --from, the dimensions define
/// a new T5 1.1.
#[derive(Args, Debug)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("Start").required(true).multiple(true).args(["from", "d_model"]),
    mut_args = section("Training", TRAINING),
    mut_args = section("Optimiser", OPTIMIZER),
    mut_arg("carry_optimizer", |arg| arg.requires("from").help(CARRY_OPTIMIZER)),
    mut_arg("keep_optimizer", |arg| arg.help(KEEP_OPTIMIZER)),
)]
pub struct Arguments {
    /// The run's directory
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The checkpoint to start from, or `hf:ORG/NAME[@REVISION]`
    #[arg(long, value_name = "MODEL", conflicts_with = "NewModel")]
    from: Option<ModelPlace>,
    #[command(flatten)]
    new: Option<NewModel>,
    #[command(flatten)]
    text: TextArguments,
    /// A tokenizer.json, spiece.model or folder, or bytes (ByT5's vocabulary) [default: that of --from]
    #[arg(long, value_name = "PATH", required_unless_present = "from", help_heading = "Text")]
    tokenizer: Option<PathBuf>,
    #[command(flatten)]
    training: Box<Settings>,
    #[command(flatten)]
    optimizer: OptimizerOptions,
    #[command(flatten)]
    decay: DecayOptions,
    #[command(flatten)]
    compute: ComputeArguments,
    #[command(flatten)]
    group: GroupArguments,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "New model")]
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
    /// Layers of the encoder, and of the decoder
    #[arg(long, value_name = "N", required = false)]
    num_layers: usize,
    /// Layers of the decoder, if it has another number
    #[arg(long, value_name = "N")]
    num_decoder_layers: Option<usize>,
    /// The activation of the MLP, and whether it is gated
    #[arg(long, value_name = "KIND", value_enum, default_value = "gated-gelu")]
    feed_forward_proj: FeedForward,
    /// Use the embedding as the output head, as T5 1.0 does
    #[arg(long)]
    tie_word_embeddings: bool,
    /// Rows of the embedding, if more than the tokenizer asks for
    #[arg(long, value_name = "N")]
    vocab_size: Option<usize>,
    /// How the random weights begin: t5, mimetic, or parts of the latter (matching+copying+local+previous+depth)
    ///
    /// With t5, training from scratch starts with a long plateau on which the decoder ignores the encoder. With
    /// mimetic, small models leave it within a few hundred updates.
    #[arg(long, value_name = "HOW", default_value_t)]
    init: Initialization,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        let stage = self.stage()?;
        let from = self.from.as_ref().map(|from| from.directory(&Terminal)).transpose()?;
        let tokenizer = self.tokenizer.clone().or_else(|| from.clone()).context("give a --tokenizer")?;
        let trained = self.compute.run_together(&self.group, |compute| {
            interrupt::listen()?;
            stage.train(from.as_deref(), &tokenizer, &self.output, compute, "pretrain", &Terminal)
        })?;
        let model = self.output.join("model");
        print(&format!("{}: step {}, held-out {}\n", model.display(), trained.steps, trained.quality))
    }

    /// The stage that these settings would make in a recipe.
    fn stage(&self) -> Result<Pretrain> {
        let start = match (&self.from, &self.new) {
            (Some(from), _) => Start::Model(from.clone().into()),
            (None, Some(new)) => Start::Random(new.dimensions()),
            (None, None) => {
                bail!("give either --from or the dimensions of a new model (--d-model and so on)")
            }
        };
        let own = || self.from.clone().map(Input::from);
        let tokenizer =
            self.tokenizer.clone().map(Input::tokenizer).or_else(own).context("give a --tokenizer")?;
        let data = self.text.data(tokenizer)?;
        let mut settings = (*self.training).clone();
        settings.optimizer = self.optimizer.of(settings.optimizer)?;
        settings.schedule.decay = self.decay.of(settings.schedule.decay)?;
        Ok(Pretrain { start, data, budget: None, settings })
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
            num_decoder_layers: self.num_decoder_layers,
            feed_forward_proj: self.feed_forward_proj,
            tie_word_embeddings: self.tie_word_embeddings,
            vocab_size: self.vocab_size,
            parameters: None,
            init: self.init,
        }
    }
}
