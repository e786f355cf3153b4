//! What a run came to.

mod comparison;
pub mod glue;
pub mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use glue_eval::{GlueReport, ScoreTable};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use t5_model::train::{EvaluationPoint, Metrics, read_metrics};

use self::comparison::Arm;
use self::glue::{Beside, Named};
use self::table::Table;
use crate::numbers::{count, duration, thousands};
use crate::run::journal::Record;
use crate::run::{RunFile, StageEntry};
use crate::stage::evaluate::TextScore;
use crate::stage::pretrain::Trained;

/// A run's results.
#[derive(Default, Serialize)]
pub struct Report {
    pub name: String,
    pub stages: Vec<StageReport>,
    /// The baseline first; empty without a comparison.
    pub comparison: Vec<Arm>,
    #[serde(skip)]
    sections: Vec<Section>,
    #[serde(skip)]
    models: Vec<Named>,
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

/// What `cargo xtask glue` leaves in its directory.
const GLUE: &str = "glue.json";

impl Report {
    /// Reads run directories, and what `cargo xtask glue` left. Several are put side by side: their stages and their
    /// GLUE results under names that say which run they are of.
    pub fn of(places: &[PathBuf], beside: &Beside) -> Result<Self> {
        let mut reports = places.iter().map(|place| Report::read(place)).collect::<Result<Vec<_>>>()?;
        let mut report = match reports.len() {
            1 => reports.remove(0),
            _ => Report::side_by_side(reports)?,
        };
        report.glue = glue::table(&report.models, beside)?;
        Ok(report)
    }

    fn read(place: &Path) -> Result<Self> {
        let file = if place.is_dir() { place.join(GLUE) } else { place.to_owned() };
        if place.join("run.json").exists() || !file.is_file() {
            return Report::of_run(place);
        }
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let report =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
        let named = if place.is_dir() { place } else { place.parent().unwrap_or(place) };
        let name = named.file_name().unwrap_or(named.as_os_str()).to_string_lossy().into_owned();
        Ok(Report { name: name.clone(), models: vec![Named { name, report }], ..Report::default() })
    }

    fn side_by_side(reports: Vec<Report>) -> Result<Self> {
        let names: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
        let mut all = Report { name: names.join(", "), ..Report::default() };
        let same_names = (1..names.len()).any(|at| names[..at].contains(&names[at]));
        for (number, Report { name, stages, models, .. }) in (1..).zip(reports) {
            // Two runs of one recipe have one name.
            let run = if same_names { format!("{name} ({number})") } else { name.clone() };
            let full = |own: &str| if own == name { run.clone() } else { format!("{run}/{own}") };
            all.models
                .extend(models.into_iter().map(|Named { name, report }| Named { name: full(&name), report }));
            all.stages.extend(stages.into_iter().map(|mut stage| {
                stage.entry.name = full(&stage.entry.name);
                stage
            }));
        }
        if !all.stages.is_empty() {
            all.sections = vec![overview(&all.stages)?];
            all.sections.extend(evaluations(&all.stages)?);
        }
        Ok(all)
    }

    /// Reads a run's directory; stages may be unfinished.
    fn of_run(run: &Path) -> Result<Self> {
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
        let models = models(&stages)?;
        Ok(Report { name: file.name, stages, comparison: arms, sections, models, glue: None })
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

    /// GLUE's table as comma-separated values.
    pub fn csv(&self) -> Result<String> {
        let glue = self
            .glue
            .as_ref()
            .context("there are no GLUE results, of which alone there is a table in CSV")?;
        Ok(glue.csv())
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

fn models(stages: &[StageReport]) -> Result<Vec<Named>> {
    let glue = stages.iter().filter(|stage| stage.entry.kind == "glue");
    let model = |stage: &StageReport| {
        let Some(result) = &stage.result else { return Ok(None) };
        let report: GlueReport = parse(&stage.entry, result)?;
        Ok(Some(Named { name: stage.entry.name.clone(), report }))
    };
    glue.filter_map(|stage| model(stage).transpose()).collect()
}

fn parse<T: DeserializeOwned>(entry: &StageEntry, result: &Value) -> Result<T> {
    serde_json::from_value(result.clone())
        .with_context(|| format!("the result of stage {:?} is damaged", entry.name))
}
