//! Held-out text with holes, and what the models of a run put into them.

use anyhow::Result;
use serde::Serialize;

use super::ReadRun;
use crate::stage::examples::{Examples, Span};

/// A text with holes, the same for several models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// With a sentinel in place of each span.
    pub input: String,
    /// The sentinels.
    pub sentinels: Vec<String>,
    /// What stood there, in the order of the sentinels.
    pub expected: Vec<String>,
    /// What each model put there.
    pub models: Vec<Filled>,
}

/// What a model put into the holes of an example.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Filled {
    /// The training's name, unique among all runs.
    pub name: String,
    /// In the order of the holes.
    pub holes: Vec<Hole>,
}

/// A hole that a model filled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hole {
    /// What it said, cut short if it said a lot; empty if it said nothing.
    pub text: String,
    /// Whether that is what stood there, but for blanks around it.
    pub right: bool,
}

pub(super) fn examples(runs: &[ReadRun]) -> Result<Vec<Example>> {
    let mut all = Vec::new();
    for run in runs {
        for stage in &run.report.stages {
            all.push((run.full_name(&stage.entry.name), Examples::read(&run.directory(stage))?));
        }
    }
    Ok(side_by_side(all.iter().map(|(name, examples)| (name.as_str(), examples))))
}

/// The examples of named models, those of one text with the same holes together.
pub(in crate::report) fn side_by_side<'a>(
    models: impl IntoIterator<Item = (&'a str, &'a Examples)>,
) -> Vec<Example> {
    let mut all: Vec<Example> = Vec::new();
    for (name, own) in models {
        for example in &own.examples {
            let filled =
                Filled { name: name.to_owned(), holes: example.spans.iter().map(Hole::of).collect() };
            // Other vocabularies may cut other holes into the same text.
            let is_same = |known: &&mut Example| {
                known.input == example.input
                    && known.expected.iter().eq(example.spans.iter().map(|span| &span.expected))
            };
            match all.iter_mut().find(is_same) {
                Some(known) => known.models.push(filled),
                None => all.push(Example {
                    input: example.input.clone(),
                    sentinels: example.spans.iter().map(|span| span.sentinel.clone()).collect(),
                    expected: example.spans.iter().map(|span| span.expected.clone()).collect(),
                    models: vec![filled],
                }),
            }
        }
    }
    all
}

impl Hole {
    fn of(span: &Span) -> Self {
        let text = span.filled.as_deref().unwrap_or_default();
        Hole { right: text.trim() == span.expected.trim(), text: shortened(text) }
    }
}

/// The characters shown of what fills a hole. A model that repeats itself says a lot.
const LONGEST: usize = 48;

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
