use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use fusion_core::checkpoint::WeightType;
use pipeline::checkpoint::check_replaceable;
use pipeline::checkpoint::convert::Conversion;
use pipeline::source::ModelPlace;

use crate::terminal::output::print;
use crate::terminal::{Terminal, interrupt, warn};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask convert t5x/checkpoint_1000000 --output my-t5 --tokenizer spiece.model\n",
    "  cargo xtask convert pytorch_model.bin --config config.json --output my-t5\n",
    "  cargo xtask convert hf:google/t5-v1_1-small --dtype bf16 --output t5-small",
);

/// Convert weights to a checkpoint in the Hugging Face layout
///
/// INPUT is a checkpoint in that layout, a file of tensors with Hugging Face's names (safetensors, or a state
/// dict saved by PyTorch), or a T5X checkpoint (a Flax MessagePack file, or the folder that contains it). DIR
/// receives safetensors, config.json, and the tokenizer, generation settings, licences and model card beside
/// INPUT; a warning names other files that are left behind. If there is no config.json, it is derived from
/// the shapes of the weights.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The weights: a directory or file, or `hf:ORG/NAME[@REVISION]`
    #[arg(value_name = "INPUT")]
    input: ModelPlace,
    /// Where to write the checkpoint
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// A config.json [default: the checkpoint's own, or one derived from the weights' shapes]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A tokenizer.json, spiece.model or folder, or bytes [default: the checkpoint's own, if it has one]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Type of the written weights [default: that of the input]
    #[arg(long, value_enum)]
    dtype: Option<WeightType>,
    /// Replace the checkpoint that an earlier command wrote into DIR; other files in DIR are kept
    #[arg(long)]
    overwrite: bool,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        check_replaceable(&self.output, self.overwrite, self.input.path().as_slice())?;
        let conversion = Conversion::open(&self.input.directory(&Terminal)?, self.config.as_deref())?;
        conversion.warnings.iter().for_each(warn);
        interrupt::listen()?;
        let dtype = self.dtype.map(WeightType::dtype);
        conversion.write(&self.output, self.tokenizer.as_deref(), dtype, &Terminal)?;
        print(&format!("written to {}\n", self.output.display()))
    }
}
