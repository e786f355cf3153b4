//! Models: where they are, and what lies with them.

#[cfg(feature = "hub")]
mod fetch;
mod place;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use fusion_core::{Checkpoint, TensorSource};
use t5_model::T5Config;
use t5_model::text::Tokenizer;

#[cfg(not(feature = "hub"))]
pub use crate::hub::refuse as fetch;
#[cfg(feature = "hub")]
pub use fetch::fetch;
pub use place::ModelPlace;

/// The tokenizer's files in a checkpoint.
const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer.json",
    "spiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// Copies the tokenizer and what belongs to it.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    for name in TOKENIZER_FILES {
        let source = from.join(name);
        if source.is_file() {
            std::fs::copy(&source, to.join(name))
                .with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(())
}

/// Whether a checkpoint made from `inputs` may be written to `output`: there is nothing, or another checkpoint that is to be
/// replaced.
pub fn check_replaceable(output: &Path, overwrite: bool, inputs: &[&Path]) -> Result<()> {
    let Ok(mut entries) = fs::read_dir(output) else { return Ok(()) };
    if entries.next().is_none() {
        return Ok(());
    }
    let place = output.display();
    ensure!(overwrite, "{place} exists and is not empty; --overwrite replaces the checkpoint in it");
    ensure!(output.join("config.json").is_file(), "{place} holds no checkpoint, so it is not overwritten");
    let same = |input: &&Path| fs::canonicalize(input).ok() == fs::canonicalize(output).ok();
    ensure!(!inputs.iter().any(same), "{place} is what is to be read, so it is not overwritten");
    Ok(())
}

/// The tokenizer that lies in a checkpoint, if one does.
pub fn tokenizer_of(directory: &Path) -> Result<Option<Tokenizer>> {
    let here = |name: &str| directory.join(name).is_file();
    if !here("tokenizer.json") && !here("spiece.model") {
        return Ok(None);
    }
    Ok(Some(Tokenizer::load(directory)?))
}

/// The tokenizer in `given`, or else the model's own; it must fit the model's vocabulary.
pub fn tokenizer_for(model: &Path, config: &T5Config, given: Option<&Path>) -> Result<Tokenizer> {
    let own = tokenizer_of(model)?;
    let tokenizer = match (given.map(Tokenizer::load).transpose()?, own) {
        (Some(given), Some(own)) => {
            let same = given.fingerprint() == own.fingerprint();
            ensure!(same, "{} comes with another tokenizer than the one given", model.display());
            given
        }
        (Some(tokenizer), None) | (None, Some(tokenizer)) => tokenizer,
        (None, None) => bail!(
            "{} comes without a tokenizer (tokenizer.json or spiece.model); --tokenizer names one that lies elsewhere",
            model.display()
        ),
    };
    ensure!(
        tokenizer.vocab_size() <= config.vocab_size,
        "the tokenizer has {} tokens, but the model in {} only {}",
        tokenizer.vocab_size(),
        model.display(),
        config.vocab_size
    );
    Ok(tokenizer)
}

/// The number of parameters that the weights hold.
pub fn parameter_count(checkpoint: &Checkpoint) -> Result<u64> {
    let mut count = 0u64;
    for name in checkpoint.names() {
        count += checkpoint.view(&name)?.shape().iter().map(|size| *size as u64).product::<u64>();
    }
    Ok(count)
}
