//! What a run came to.

mod comparison;
mod run_file;
pub mod table;

use std::path::Path;

use anyhow::{Context, Result};
use glue_eval::{GlueReport, ScoreTable};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use t5_model::train::{EvaluationPoint, Metrics, read_metrics};

use self::comparison::Arm;
pub use self::run_file::{RunFile, StageEntry};
use self::table::Table;
use crate::output::{count, thousands};
use crate::progress::duration;
use crate::stage::evaluate::TextScore;
use crate::stage::pretrain::Trained;
use crate::stage::record::Record;

/// A run's results.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub name: String,
    pub stages: Vec<StageReport>,
    /// The baseline first; empty without a comparison.
    pub comparison: Vec<Arm>,
    #[serde(skip)]
    sections: Vec<Section>,
    #[serde(skip)]
    glue: Option<ScoreTable>,
}

/// A stage, and its result if it is finished.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    #[serde(flatten)]
    pub entry: StageEntry,
    pub finished: bool,
    pub seconds: Option<f64>,
    pub result: Option<Value>,
}

/// A table with words around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    pub title: String,
    pub about: String,
    pub table: Table,
    pub notes: Vec<String>,
}

impl Report {
    /// Reads a run's directory; stages may be unfinished.
    pub fn of_run(run: &Path) -> Result<Self> {
        let file = RunFile::read(run)?;
        let stage = |entry: &StageEntry| {
            let record = Record::read(&run.join(&entry.name))?;
            Ok(StageReport {
                entry: entry.clone(),
                finished: record.is_some(),
                seconds: record.as_ref().map(|record| record.seconds),
                result: record.map(|record| record.result),
            })
        };
        let stages = file.stages.iter().map(stage).collect::<Result<Vec<_>>>()?;
        let mut sections = vec![overview(&stages)?];
        sections.extend(evaluations(&stages)?);
        let (arms, missing) = arms(run, &file, &stages)?;
        if let Some((baseline, fused)) = arms.split_first()
            && !fused.is_empty()
        {
            sections.extend(comparison::sections(baseline, fused));
            if let Some(section) = sections.last_mut().filter(|_| !missing.is_empty()) {
                section.notes.push(format!("Not finished, so not compared: {}.", missing.join(", ")));
            }
        }
        let glue = glue(&stages)?;
        Ok(Report { name: file.name, stages, comparison: arms, sections, glue })
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.name, "=".repeat(self.name.chars().count()));
        for Section { title, about, table, notes } in &self.sections {
            text += &format!("\n{title}\n{}\n", "-".repeat(title.chars().count()));
            text += &if about.is_empty() { String::new() } else { format!("{about}\n\n") };
            text += &table.text();
            text += &notes.iter().map(|note| format!("{note}\n")).collect::<String>();
        }
        if let Some(glue) = &self.glue {
            text += &format!("\nGLUE\n----\n{}", glue.text());
        }
        text
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n", self.name);
        for Section { title, about, table, notes } in &self.sections {
            text += &format!("\n## {title}\n\n");
            text += &if about.is_empty() { String::new() } else { format!("{about}\n\n") };
            text += &table.markdown();
            text += &notes.iter().map(|note| format!("\n{note}\n")).collect::<String>();
        }
        if let Some(glue) = &self.glue {
            text += &format!("\n## GLUE\n\n{}", glue.markdown());
        }
        text
    }
}

fn overview(stages: &[StageReport]) -> Result<Section> {
    let mut table =
        Table::new(["stage", "kind", "parameters", "steps", "tokens", "loss", "accuracy, %", "time"]);
    for stage in stages {
        let mut row = vec![stage.entry.name.clone(), stage.entry.kind.clone()];
        match &stage.result {
            None => row.extend(["-", "-", "-", "-", "-", "not finished"].map(str::to_owned)),
            Some(result) if stage.entry.kind == "pretrain" => {
                let trained: Trained = parse(&stage.entry, result)?;
                row.extend([
                    thousands(trained.parameters),
                    trained.steps.to_string(),
                    count(trained.tokens as f64),
                    format!("{:.4}", trained.loss),
                    format!("{:.2}", 100.0 * trained.accuracy),
                ]);
            }
            Some(result) => {
                let parameters = result.get("parameters").and_then(Value::as_u64);
                row.push(parameters.map_or("-".into(), thousands));
                row.extend(["-", "-", "-", "-"].map(str::to_owned));
            }
        }
        row.extend(stage.seconds.map(duration));
        table.rows.push(row);
    }
    let about =
        "Loss (mean cross-entropy of a target token, in nats) and token accuracy on held-out text.".into();
    Ok(Section { title: "Stages".into(), about, table, notes: Vec::new() })
}

fn evaluations(stages: &[StageReport]) -> Result<Option<Section>> {
    let mut table = Table::new(["stage", "model", "loss", "accuracy, %", "tokens"]);
    for stage in stages.iter().filter(|stage| stage.entry.kind == "evaluate") {
        let Some(result) = &stage.result else { continue };
        let score: TextScore = parse(&stage.entry, result)?;
        table.rows.push(vec![
            stage.entry.name.clone(),
            stage.entry.inputs.first().cloned().unwrap_or_default(),
            format!("{:.4}", score.loss),
            format!("{:.2}", 100.0 * score.accuracy),
            count(score.tokens as f64),
        ]);
    }
    let section = Section { title: "Evaluations".into(), about: String::new(), table, notes: Vec::new() };
    Ok(Some(section).filter(|section| !section.table.rows.is_empty()))
}

/// The arms whose training has finished, the baseline first, and the names of the others. None without the baseline.
fn arms(run: &Path, file: &RunFile, stages: &[StageReport]) -> Result<(Vec<Arm>, Vec<String>)> {
    let (mut arms, mut missing) = (Vec::new(), Vec::new());
    let Some(comparison) = &file.comparison else { return Ok((arms, missing)) };
    for name in std::iter::once(&comparison.baseline).chain(&comparison.arms) {
        let stage = stages.iter().find(|stage| stage.entry.name == *name);
        let Some((stage, result)) = stage.and_then(|stage| Some((stage, stage.result.as_ref()?))) else {
            if *name == comparison.baseline {
                return Ok((arms, missing));
            }
            missing.push(name.clone());
            continue;
        };
        let trained: Trained = parse(&stage.entry, result)?;
        let metrics = read_metrics(&run.join(name))?;
        let point = |metrics: Metrics| match metrics {
            Metrics::Evaluation(point) => Some(point),
            Metrics::Train { .. } => None,
        };
        let evaluations: Vec<EvaluationPoint> = metrics.into_iter().filter_map(point).collect();
        let parents_flops = trained.total_flops - trained.flops;
        arms.push(Arm { name: name.clone(), parents_flops, evaluations });
    }
    Ok((arms, missing))
}

fn glue(stages: &[StageReport]) -> Result<Option<ScoreTable>> {
    let mut table = ScoreTable::default();
    for stage in stages.iter().filter(|stage| stage.entry.kind == "glue") {
        let Some(result) = &stage.result else { continue };
        let report: GlueReport = parse(&stage.entry, result)?;
        let ScoreTable { rows, notes } = report.table(&stage.entry.name);
        table.rows.extend(rows);
        for note in notes {
            if !table.notes.contains(&note) {
                table.notes.push(note);
            }
        }
    }
    Ok(Some(table).filter(|table| !table.rows.is_empty()))
}

fn parse<T: DeserializeOwned>(entry: &StageEntry, result: &Value) -> Result<T> {
    serde_json::from_value(result.clone())
        .with_context(|| format!("the result of stage {:?} is damaged", entry.name))
}
