//! Text by name: files, folders, globs, and built-in text.

use std::path::Path;
#[cfg(feature = "webster")]
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use t5_model::text::Corpus;

use crate::Warning;
use crate::not_built;

/// The prefix of built-in text.
pub const BUILTIN: &str = "builtin:";

/// The documents of all inputs; those of JSON and tables are in the field or column of that name. Built-in
/// text cannot be mixed with files.
pub fn open(inputs: &[String], field: &str) -> Result<Corpus> {
    let builtin = inputs.iter().find_map(|input| input.strip_prefix(BUILTIN));
    match builtin {
        Some(name) if inputs.len() == 1 => builtin_corpus(name),
        Some(name) => bail!("{BUILTIN}{name} cannot be mixed with other text"),
        None => {
            let corpus = Corpus::open(inputs).context("the text cannot be read")?;
            if corpus.has_parquet() {
                not_built::require(&[("parquet", cfg!(feature = "parquet"))])?;
            }
            Ok(corpus.with_field(field))
        }
    }
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
        if input.starts_with(BUILTIN) {
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
