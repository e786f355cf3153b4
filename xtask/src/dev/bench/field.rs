//! Who takes part in a bench.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use pipeline::NotBuilt;

use super::contestant::Contestant;
use super::python;
use crate::dev::feature;

const NO_TRANSFORMERS: &str = "Without transformers: no Python with torch and transformers was found. \
     `pip install torch transformers`, or name one with --python";
const GET_CTRANSLATE2: &str = "`pip install ctranslate2` there, or name another Python with --python";

/// Fails if anything these contestants need is not compiled in.
pub fn require(names: &[String]) -> Result<(), NotBuilt> {
    let needed = names.iter().filter_map(|name| {
        let mut words = name.split_whitespace();
        feature::missing_for(words.next()?, words.next())
    });
    let features: BTreeSet<&str> = needed.map(|feature| feature.name).collect();
    match features.is_empty() {
        true => Ok(()),
        false => Err(NotBuilt { features: features.into_iter().collect() }),
    }
}

/// The contestants taking part.
pub struct Field {
    pub contestants: Vec<Contestant>,
    pub python: Option<PathBuf>,
    /// A line that says which contestants are left out and what they lack; empty if none are.
    pub left_out: String,
}

impl Field {
    /// The contestants named in `only`, or else all whose requirements are met.
    pub fn new(all: Vec<Contestant>, only: &[String], python: Option<&Path>) -> Result<Field> {
        let contestants = Contestant::chosen(all, only)?;
        ensure!(!contestants.is_empty(), "no backend is compiled in");
        let mut field = Field { contestants, python: None, left_out: String::new() };
        if field.contestants.iter().any(Contestant::needs_python) {
            field.python = python::find(python)?;
            if field.python.is_none() {
                field.leave_out(Contestant::needs_python, NO_TRANSFORMERS);
            }
        }
        if let Some(python) = &field.python
            && field.contestants.iter().any(Contestant::needs_ctranslate2)
            && !python::has(python, "ctranslate2")
        {
            let reason = format!("Without ctranslate2: {} lacks it. {GET_CTRANSLATE2}", python.display());
            field.leave_out(Contestant::needs_ctranslate2, &reason);
        }
        ensure!(only.is_empty() || field.left_out.is_empty(), "{}", field.left_out.trim());
        Ok(field)
    }

    fn leave_out(&mut self, whom: fn(&Contestant) -> bool, reason: &str) {
        self.contestants.retain(|contestant| !whom(contestant));
        self.left_out = format!("\n{reason}\n");
    }
}
