//! What is needed to repeat a run.

use std::collections::BTreeSet;

use anyhow::Result;
use fusion_core::lineage::Lineage;
use serde::Serialize;
use serde_json::Value;

use super::{ReadRun, model_in};
use crate::recipe::RecipeText;
use crate::run::{Machine, journal};
use crate::stage::texts::{self, TextFile};

/// Where a run's results come from.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Provenance {
    /// The run's directory, as it was given.
    pub place: String,
    /// The recipe's files, each before those that it includes, and its overrides.
    pub recipe: Vec<RecipeText>,
    /// The command that was given last, word by word.
    pub command: Vec<String>,
    /// When the first stage began, in seconds since 1970.
    pub began: Option<u64>,
    /// The machines that worked on it, and on which stages.
    pub machines: Vec<Ran>,
    /// Names of the texts that were read.
    pub texts: Vec<String>,
    /// Their files, as the trainings found them. Those of one name are several if it was changed in between.
    pub text_files: Vec<TextFile>,
    /// The stages.
    pub stages: Vec<Origin>,
}

/// Work on one machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ran {
    /// The machine, and what of it was used.
    #[serde(flatten)]
    pub machine: Machine,
    /// Names of stages.
    pub stages: Vec<String>,
}

/// What decided a stage's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Origin {
    /// The stage.
    pub name: String,
    /// Of its random numbers.
    pub seed: Option<u64>,
    /// BLAKE3 of its weights, if it has any.
    pub weights: Option<String>,
    /// Of its tokenizer, if it is one.
    pub tokenizer: Option<String>,
    /// All of its settings.
    pub settings: Option<Value>,
}

pub(super) fn provenance(run: &ReadRun) -> Result<Provenance> {
    let file = run.report.file.as_ref();
    let mut all = Provenance {
        place: run.place.display().to_string(),
        recipe: file.map(|file| file.recipe.clone()).unwrap_or_default(),
        command: file.map(|file| file.command.clone()).unwrap_or_default(),
        ..Provenance::default()
    };
    let (mut names, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for stage in &run.report.stages {
        let directory = run.directory(stage);
        let (name, settings) = (stage.entry.name.clone(), stage.settings.as_ref());
        for file in texts::read(&directory) {
            if seen.insert((file.name.clone(), file.sha256.clone())) {
                all.text_files.push(file);
            }
        }
        for session in journal::sessions(&directory)? {
            all.began = all.began.into_iter().chain([session.began]).min();
            let Some(machine) = session.machine else { continue };
            match all.machines.iter_mut().find(|ran| ran.machine == machine) {
                Some(ran) if ran.stages.contains(&name) => {}
                Some(ran) => ran.stages.push(name.clone()),
                None => all.machines.push(Ran { machine, stages: vec![name.clone()] }),
            }
        }
        let data = settings.map(|settings| settings.get("data").unwrap_or(settings));
        let named = data.and_then(|data| data.get("text")?.as_array()).into_iter().flatten();
        names.extend(named.filter_map(|text| text.as_str().map(str::to_owned)));
        let lineage = match model_in(&directory) {
            Some(model) => Lineage::read(&model)?,
            None => None,
        };
        all.stages.push(Origin {
            seed: settings.and_then(|settings| settings.get("seed")?.as_u64()),
            weights: lineage.and_then(|lineage| lineage.blake3),
            tokenizer: stage
                .result
                .as_ref()
                .and_then(|result| Some(result.get("fingerprint")?.as_str()?.to_owned())),
            settings: settings.cloned(),
            name,
        });
    }
    all.texts = names.into_iter().collect();
    Ok(all)
}
