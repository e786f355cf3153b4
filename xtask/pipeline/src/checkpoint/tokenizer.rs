//! The tokenizer inside a checkpoint.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use t5_model::T5Config;
use t5_model::text::Tokenizer;

use crate::problems::{Remedy, mendable};
use crate::source::{TOKENIZER_FILES, content};

/// Copies the tokenizer and its accompanying files.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    copy_files(&TOKENIZER_FILES, from, to)
}

/// Copies those files of a directory that it has.
pub fn copy_files(names: &[&str], from: &Path, to: &Path) -> Result<()> {
    for name in names {
        let source = from.join(name);
        if source.is_file() {
            std::fs::copy(&source, to.join(name))
                .with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(())
}

/// The tokenizer in a file, a folder, or a folder that holds one (see [`content`]).
pub fn load_tokenizer(path: &Path) -> Result<Tokenizer> {
    Ok(Tokenizer::load(content(path)?)?)
}

/// The tokenizer inside a checkpoint, if there is one.
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
    let tokenizer = match (given.map(load_tokenizer).transpose()?, own) {
        (Some(given), Some(own)) => {
            let same = given.fingerprint() == own.fingerprint();
            ensure!(same, "{} comes with another tokenizer than the one given", model.display());
            given
        }
        (Some(tokenizer), None) | (None, Some(tokenizer)) => tokenizer,
        (None, None) => {
            let place = model.display();
            let problem = format!("{place} comes without a tokenizer (tokenizer.json or spiece.model)");
            return Err(mendable(problem, Remedy::Tokenizer));
        }
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
