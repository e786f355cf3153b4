//! Evaluates a model on held-out text.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use t5_model::T5Config;
use t5_model::train::{Evaluation, EvaluationSize, objective_of};
use toml::Spanned;

use super::text::{Data, Reading};
use super::{
    DataTable, Finished, Forecast, Gives, Input, Keys, Kind, Known, Published, QUALITY, Row, Shown, Work,
    quality_cells,
};
use crate::checkpoint::tokenizer_for;
use crate::numbers::count;
use crate::recipe::schema::one;
use crate::{Compute, Note, Warning, Watch};

/// A model, and the text to evaluate it on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluate {
    /// The checkpoint to evaluate.
    pub model: Input,
    /// Only the held-out text is read.
    pub data: Data,
    /// The maximum number of examples.
    pub examples: u64,
    /// Examples on the device at once.
    pub batch_size: NonZeroUsize,
}

/// `evaluate`, whose result is an [`Evaluation`].
pub const KIND: Kind = Kind {
    name: "evaluate",
    about: "Evaluates a model on held-out text.",
    gives: None,
    output: "evaluation.json",
    table: None,
    keys: one::<OwnKeys>,
    computes: true,
    together: true,
    read,
    show,
    arm: None,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OwnKeys {
    /// The model to evaluate: a stage, a checkpoint's directory, or `hf:ORG/NAME[@REVISION]`; always needed.
    #[schemars(with = "String")]
    model: Spanned<String>,
    /// The maximum number of examples.
    #[serde(default = "usual_examples")]
    examples: u64,
    /// Examples on the device at once.
    #[serde(default = "usual_batch_size")]
    batch_size: NonZeroUsize,
    /// Overrides keys of `[data]`, of which the held-out text is read.
    #[serde(default)]
    #[schemars(with = "Option<DataTable>")]
    #[expect(dead_code, reason = "read with `[data]`")]
    data: Option<()>,
    /// What others have measured of such a model: a `source`, and any of `loss`, `accuracy` (in percent) and `glue` (the
    /// average over tasks). Plans show it, and reports beside what was measured here.
    #[serde(default)]
    #[schemars(with = "Option<Published>")]
    #[expect(dead_code, reason = "read for all kinds alike")]
    published: Option<()>,
}

fn usual_examples() -> u64 {
    16_000
}

fn usual_batch_size() -> NonZeroUsize {
    const { NonZeroUsize::new(32).unwrap() }
}

fn read(keys: &mut Keys<'_>) -> Result<Arc<dyn Work>> {
    let data = keys.data()?;
    let data = keys.tokenized(data)?;
    let OwnKeys { model, examples, batch_size, .. } = keys.rest()?;
    let model = keys.input(model, Gives::Model)?;
    Ok(Arc::new(Evaluate { model, data, examples, batch_size }))
}

fn show(finished: &Finished<'_>) -> Result<Shown> {
    let Evaluation { quality, tokens } = finished.result()?;
    let row = Row {
        title: "Evaluations",
        header: &["model", QUALITY[0], QUALITY[1], QUALITY[2], "tokens"],
        cells: [finished.inputs.first().cloned().unwrap_or_default()]
            .into_iter()
            .chain(quality_cells(&[quality]))
            .chain([count(tokens as f64)])
            .collect(),
    };
    Ok(Shown { row: Some(row), ..Shown::parameters(finished)? })
}

impl Work for Evaluate {
    fn inputs(&self) -> Vec<&Input> {
        vec![&self.model, &self.data.tokenizer]
    }

    fn reads(&self) -> Vec<Reading<'_>> {
        vec![self.data.evaluated()]
    }

    fn forecast(&self, known: &Known<'_>) -> Result<Forecast> {
        let tokenizer = known.one_tokenizer([&self.model, &self.data.tokenizer])?;
        Ok(Forecast { tokenizer, ..Forecast::default() })
    }

    fn run(&self, context: &super::Context<'_>) -> Result<Value> {
        let tokenizer = context.locate(&self.data.tokenizer)?;
        let model = context.locate(&self.model)?;
        let score = self.score(&model, &tokenizer, context.compute, context.name, context.watch)?;
        context.write_json(&score)
    }
}

impl Evaluate {
    /// Evaluates the model, whose files were found.
    pub fn score(
        &self,
        model: &Path,
        tokenizer: &Path,
        compute: &Compute,
        name: &str,
        watch: &dyn Watch,
    ) -> Result<Evaluation> {
        let (checkpoint, config) = T5Config::open(model)?;
        let tokenizer = tokenizer_for(model, &config, Some(tokenizer))?;
        let text = self.data.open(tokenizer, watch)?;
        if let Some(trained) = objective_of(model).filter(|trained| *trained != self.data.objective) {
            let (trained, measured) = (trained.to_string(), self.data.objective.to_string());
            let warning = Warning::OtherObjective { model: self.model.to_string(), trained, measured };
            watch.note(name, &Note::Warning(&warning));
        }
        let mut session = compute.open_checkpoint(&checkpoint)?;
        if let Some(group) = compute.group() {
            session.join(group.clone())?;
        }
        let size = EvaluationSize { examples: self.examples, examples_at_once: self.batch_size.get() };
        let progress = watch.steps(name, "examples evaluated");
        t5_model::train::evaluate(session.as_mut(), text.evaluation()?, size, &mut |done, of| {
            progress(done, of)
        })
        .with_context(|| format!("cannot evaluate {}", model.display()))
    }
}
