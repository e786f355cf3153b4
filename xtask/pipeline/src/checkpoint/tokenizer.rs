//! The tokenizer inside a checkpoint.

use std::path::Path;

use anyhow::{Result, ensure};
use t5_model::T5Config;
use t5_model::text::Tokenizer;

use crate::problems::{Remedy, mendable};
use crate::source::content;

/// In place of a tokenizer's path: ByT5's vocabulary of bytes, which is in no file. A folder of this name is
/// `./bytes`.
pub const BYTES: &str = "bytes";

/// Whether there is a tokenizer inside a checkpoint.
pub fn has_tokenizer(directory: &Path) -> bool {
    Tokenizer::is_in(directory)
}

/// The tokenizer in a file, a folder, or a folder that holds one (see [`content`]), or [`BYTES`].
pub fn load_tokenizer(path: &Path) -> Result<Tokenizer> {
    if path == Path::new(BYTES) {
        return Ok(Tokenizer::bytes()?);
    }
    Ok(Tokenizer::load(content(path)?)?)
}

/// The tokenizer inside a checkpoint, if there is one.
pub fn tokenizer_of(directory: &Path) -> Result<Option<Tokenizer>> {
    Ok(if has_tokenizer(directory) { Some(Tokenizer::load(directory)?) } else { None })
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
