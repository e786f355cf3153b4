//! What a report shows of a stage.

use std::path::Path;

use anyhow::{Context, Result};
use glue_eval::GlueReport;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use t5_model::train::{EvaluationPoint, Quality};

use super::SeedSet;
use super::examples::Examples;
use crate::numbers::mean;

/// A finished stage of a run.
pub struct Finished<'a> {
    /// The stage's name.
    pub name: &'a str,
    /// Which set of seeds it has, if it is run with several.
    pub seed_set: Option<&'a SeedSet>,
    /// Stages and paths.
    pub inputs: &'a [String],
    /// The stage's own directory.
    pub directory: &'a Path,
    /// As in `stage.json`.
    pub result: &'a Value,
}

/// What a report shows of a stage.
#[derive(Default)]
pub struct Shown {
    /// For the table of all stages.
    pub overview: Overview,
    /// For a table of stages of this kind.
    pub row: Option<Row>,
    /// For the GLUE table.
    pub glue: Option<GlueReport>,
    /// How its model fills in blanks.
    pub examples: Examples,
}

/// A stage's numbers for the table of all stages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overview {
    /// Parameters of the model it produced.
    pub parameters: Option<u64>,
    /// Optimiser steps that the model was trained for.
    pub steps: Option<u64>,
    /// Input and target tokens that were trained on.
    pub tokens: Option<u64>,
    /// On held-out text.
    pub quality: Option<Quality>,
}

/// A row of a table shared by stages of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The table's heading; rows with equal titles share a table.
    pub title: &'static str,
    /// The columns after the stage's name.
    pub header: &'static [&'static str],
    /// One for each column in `header`.
    pub cells: Vec<String>,
}

/// How a trained model became better, and what that took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Arm {
    /// The stage's.
    pub name: String,
    /// Which set of seeds it has, if it was trained with several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed_set: Option<SeedSet>,
    /// Floating-point operations spent on the model that training started from.
    pub parents_flops: f64,
    /// In order of steps.
    pub evaluations: Vec<EvaluationPoint>,
}

/// The columns of [`quality_cells`].
pub const QUALITY: [&str; 3] = ["loss", "accuracy, %", "context gain"];

/// A model's quality in a table, or the mean of several; dashes where it is not known.
pub fn quality_cells(qualities: &[Quality]) -> [String; 3] {
    let cell = |of: &dyn Fn(&Quality) -> Option<f64>, digits| {
        let values: Vec<f64> = qualities.iter().filter_map(of).collect();
        mean(&values, digits).unwrap_or_else(|| "-".to_owned())
    };
    [
        cell(&|quality| Some(quality.loss), 4),
        cell(&|quality| Some(100.0 * quality.accuracy), 2),
        cell(&|quality| quality.context_gain, 3),
    ]
}

impl Finished<'_> {
    /// Reads the result as the type that the stage's kind writes.
    pub fn result<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.result.clone())
            .with_context(|| format!("the result of stage {:?} is damaged", self.name))
    }
}

impl Shown {
    /// The number of parameters, if the result has one, and nothing else.
    pub fn parameters(finished: &Finished<'_>) -> Result<Shown> {
        let parameters = finished.result.get("parameters").and_then(Value::as_u64);
        Ok(Shown { overview: Overview { parameters, ..Overview::default() }, ..Shown::default() })
    }
}
