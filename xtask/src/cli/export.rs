use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytesize::ByteSize;
use clap::Args;
use fusion_core::atomic::Place;
use fusion_core::checkpoint::WeightType;
use pipeline::checkpoint::check_replaceable;
use pipeline::checkpoint::export::{Export, ExportSettings};
use pipeline::source::ModelPlace;
use t5_model::T5Config;

use crate::terminal::output::print;
use crate::terminal::{Terminal, interrupt, warn};

const EXAMPLES: &str = concat!(
    "Examples:\n",
    "  cargo xtask export large/model --output my-t5 --license apache-2.0 --language en\n",
    "  cargo xtask export fused --output fused-bf16 --dtype bf16",
);

/// Export a checkpoint for users of transformers, ready to upload
///
/// Writes the weights, the configuration, the tokenizer, generation settings and licences, and a model card
/// that says what the model was made from. For a model fused under the fusion property, it also writes the code for grouped normalisation; such
/// a model loads in transformers 4 and 5 with `AutoModelForSeq2SeqLM.from_pretrained(DIR,
/// trust_remote_code=True)`. Any other model loads like every T5.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoint: a directory in the Hugging Face layout, or `hf:ORG/NAME[@REVISION]`
    #[arg(value_name = "CKPT")]
    checkpoint: ModelPlace,
    /// Where to write the export
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The model's name in the card [default: the name of DIR]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Type of the exported weights [default: the checkpoint's]
    #[arg(long, value_enum)]
    dtype: Option<WeightType>,
    /// Split larger weights into files of at most this size
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    max_shard_size: ByteSize,
    /// The license for the card, as the Hub spells it; if omitted, the card names none
    #[arg(long, value_name = "LICENSE")]
    license: Option<String>,
    /// A language of the model, for the card; can be repeated
    #[arg(long, value_name = "CODE")]
    language: Vec<String>,
    /// A model on the Hub that this one was made from, for the card; can be repeated
    #[arg(long, value_name = "OWNER/NAME")]
    base_model: Vec<String>,
    /// Replace the checkpoint that an earlier command wrote into DIR; other files in DIR are kept
    #[arg(long)]
    overwrite: bool,
}

impl Arguments {
    pub fn run(self) -> Result<()> {
        ensure!(self.max_shard_size.as_u64() > 0, "--max-shard-size must be greater than 0");
        check_replaceable(&self.output, self.overwrite, self.checkpoint.path().as_slice())?;
        Place::of(&self.output)?.check(&["README.md"])?;
        let settings = ExportSettings {
            name: self.name.map_or_else(|| name_of(&self.output), Ok)?,
            dtype: self.dtype.map(WeightType::dtype),
            max_shard_size: self.max_shard_size.as_u64(),
            license: self.license,
            languages: self.language,
            base_models: self.base_model,
        };
        let (checkpoint, _) = T5Config::open(&self.checkpoint.directory(&Terminal)?)?;
        let export = Export::new(&checkpoint, settings)?;
        export.warnings.iter().for_each(warn);
        interrupt::listen()?;
        export.write(&self.output, &Terminal)?;
        print(&format!("written to {}\n", self.output.display()))
    }
}

/// The last component of a directory's path.
fn name_of(directory: &Path) -> Result<String> {
    let name =
        directory.file_name().context("the output directory has no name to give the model: use --name")?;
    Ok(name.to_string_lossy().into_owned())
}
