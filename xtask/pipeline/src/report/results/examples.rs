//! Held-out text with holes, and what the models of all runs put into them.

use serde::Serialize;

use super::ReadRun;

/// A text with holes, the same for several models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// With a sentinel in place of each span.
    pub input: String,
    /// The sentinels, in order.
    pub sentinels: Vec<String>,
    /// What stood there, in the same order.
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
    /// What it said; `None` if its answer ends before it, or leaves the hole out.
    pub text: Option<String>,
    /// Whether that is what stood there.
    pub right: bool,
}

pub(super) fn examples(runs: &[ReadRun]) -> Vec<Example> {
    let mut all: Vec<Example> = Vec::new();
    for run in runs {
        for stage in &run.report.stages {
            let name = run.full_name(&stage.entry.name);
            let Some(shown) = &stage.shown else { continue };
            for example in &shown.examples.examples {
                let (mut sentinels, mut expected, mut holes) = (Vec::new(), Vec::new(), Vec::new());
                for span in &example.spans {
                    sentinels.push(span.sentinel.clone());
                    expected.push(span.expected.clone());
                    let right = span.filled.as_ref() == Some(&span.expected);
                    holes.push(Hole { text: span.filled.clone(), right });
                }
                let filled = Filled { name: name.clone(), holes };
                // Another objective or vocabulary may cut other holes into the same text.
                let same = |known: &&mut Example| known.input == example.input && known.expected == expected;
                match all.iter_mut().find(same) {
                    Some(known) => known.models.push(filled),
                    None => {
                        let (input, models) = (example.input.clone(), vec![filled]);
                        all.push(Example { input, sentinels, expected, models });
                    }
                }
            }
        }
    }
    all
}
