//! Held-out text with holes, and what the models of a run put into them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::ReadRun;

/// A text with holes, the same for several models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// With a sentinel in place of each span.
    pub input: String,
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
    /// What it said; empty if it said nothing.
    pub text: String,
    /// Whether that is what stood there, but for blanks around it.
    pub right: bool,
}

/// The file that a pretraining leaves.
const FILE: &str = "examples.json";

#[derive(Deserialize)]
struct File {
    examples: Vec<Read>,
}

#[derive(Deserialize)]
struct Read {
    input: String,
    #[serde(default)]
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Span {
    #[serde(default)]
    expected: String,
    #[serde(default)]
    filled: String,
}

pub(super) fn examples(runs: &[ReadRun]) -> Result<Vec<Example>> {
    let mut examples: Vec<Example> = Vec::new();
    for run in runs {
        for stage in &run.report.stages {
            let Some(file) = read(&run.directory(stage))? else { continue };
            let name = run.full_name(&stage.entry.name);
            for Read { input, spans } in file.examples {
                let expected: Vec<String> = spans.iter().map(|span| span.expected.clone()).collect();
                let hole = |span: &Span| Hole {
                    text: span.filled.clone(),
                    right: span.filled.trim() == span.expected.trim(),
                };
                let filled = Filled { name: name.clone(), holes: spans.iter().map(hole).collect() };
                // Other vocabularies may cut other holes into the same text.
                match examples.iter_mut().find(|known| known.input == input && known.expected == expected) {
                    Some(example) => example.models.push(filled),
                    None => examples.push(Example { input, expected, models: vec![filled] }),
                }
            }
        }
    }
    Ok(examples)
}

fn read(directory: &Path) -> Result<Option<File>> {
    let path = directory.join(FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = serde_json::from_slice(&text);
    file.map(Some).with_context(|| format!("{} is damaged", path.display()))
}
