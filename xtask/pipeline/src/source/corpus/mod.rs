//! Text by name: files, folders, globs, datasets on the Hugging Face Hub, object stores, the web, and built-in text.

#[cfg(any(feature = "hub", feature = "object-store"))]
mod choose;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "object-store")]
mod object_store;

use std::path::Path;
#[cfg(feature = "webster")]
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use t5_model::text::Corpus;

use super::hub::HubName;
use crate::Warning;
use crate::not_built;

/// The prefix of built-in text.
pub const BUILTIN: &str = "builtin:";

/// The documents of all inputs, in their order; those of JSON and tables are in the field or column of that name.
/// Built-in text cannot be mixed with files. Files elsewhere are only listed; they are fetched when they are read.
pub fn open(inputs: &[String], field: &str) -> Result<Corpus> {
    let builtin = inputs.iter().find_map(|input| input.strip_prefix(BUILTIN));
    match builtin {
        Some(name) if inputs.len() == 1 => builtin_corpus(name),
        Some(name) => bail!("{BUILTIN}{name} cannot be mixed with other text"),
        None => {
            let parts = inputs.chunk_by(|one, other| !is_elsewhere(one) && !is_elsewhere(other));
            // No inputs are one part, which cannot be read.
            let parts = parts.chain(inputs.is_empty().then_some(inputs)).map(part);
            let corpora = parts.collect::<Result<Vec<_>>>().context("the text cannot be read")?;
            let corpus =
                corpora.into_iter().reduce(Corpus::and).unwrap_or_else(|| Corpus::from_remote(Vec::new()));
            if corpus.has_parquet() {
                not_built::require(&[("parquet", cfg!(feature = "parquet"))])?;
            }
            Ok(corpus.with_field(field))
        }
    }
}

/// Whether an input names something that is not on this machine, or not in a place that the user knows.
pub fn is_elsewhere(input: &str) -> bool {
    input.starts_with(HubName::PREFIX) || input.contains("://")
}

/// One input elsewhere, or several here.
fn part(inputs: &[String]) -> Result<Corpus> {
    match inputs {
        [input] if input.starts_with(HubName::PREFIX) => dataset(input),
        [input] if is_elsewhere(input) => stored(input),
        inputs => Ok(Corpus::open(inputs)?),
    }
}

#[cfg(feature = "hub")]
fn dataset(name: &str) -> Result<Corpus> {
    hub::open(&name.parse().map_err(anyhow::Error::msg)?)
}

#[cfg(not(feature = "hub"))]
fn dataset(_: &str) -> Result<Corpus> {
    Err(crate::NotBuilt { features: vec!["hub"] }.into())
}

#[cfg(feature = "object-store")]
fn stored(url: &str) -> Result<Corpus> {
    object_store::open(url)
}

#[cfg(not(feature = "object-store"))]
fn stored(_: &str) -> Result<Corpus> {
    Err(crate::NotBuilt { features: vec!["object-store"] }.into())
}

/// What was found for the inputs of texts but is not read, if there is anything.
pub fn left_out<'a>(texts: impl IntoIterator<Item = &'a Corpus>) -> Option<Warning> {
    let left_out = texts.into_iter().flat_map(Corpus::left_out).map(ToString::to_string);
    let mut files: Vec<String> = left_out.collect();
    files.dedup();
    (!files.is_empty()).then_some(Warning::LeftOutText { files })
}

/// Inputs as seen from `directory`, as absolute paths: a run goes on wherever the user stands.
pub fn absolute(directory: &Path, inputs: &[String]) -> Result<Vec<String>> {
    let absolute = |input: &String| {
        if input.starts_with(BUILTIN) || is_elsewhere(input) {
            return Ok(input.clone());
        }
        ensure!(!input.is_empty(), "the name of a text is empty");
        let path =
            std::path::absolute(directory.join(input)).with_context(|| format!("the path {input:?}"))?;
        Ok(path.display().to_string())
    };
    inputs.iter().map(absolute).collect()
}

/// Inputs as seen from the current directory.
pub fn from_here(inputs: &[String]) -> Result<Vec<String>> {
    absolute(Path::new(""), inputs)
}

#[cfg(feature = "webster")]
fn builtin_corpus(name: &str) -> Result<Corpus> {
    // Several stages may read it.
    static WEBSTER: OnceLock<Corpus> = OnceLock::new();
    match name {
        "webster" => match WEBSTER.get() {
            Some(webster) => Ok(webster.clone()),
            None => {
                let webster = Corpus::from_documents("builtin:webster", super::webster::documents()?);
                Ok(WEBSTER.get_or_init(|| webster).clone())
            }
        },
        _ => bail!("no built-in text is called {name:?}; there is {BUILTIN}webster"),
    }
}

#[cfg(not(feature = "webster"))]
fn builtin_corpus(_: &str) -> Result<Corpus> {
    Err(crate::NotBuilt { features: vec!["webster"] }.into())
}
