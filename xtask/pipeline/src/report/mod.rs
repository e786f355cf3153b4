//! Reports of runs' results.

mod comparison;
pub mod figures;
pub mod glue_table;
mod holes;
pub mod page;
pub mod plot;
mod published;
pub mod results;
mod seeds;
pub mod table;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use glue_eval::ScoreTable;
use serde::Serialize;
use serde_json::Value;
use t5_model::train::{EvaluationPoint, Quality};

use self::comparison::Chance;
use self::glue_table::{Beside, Named};
use self::table::Table;
use crate::numbers::{count, duration, thousands};
use crate::run::journal::{self, Record};
use crate::run::{LeftOut, RunFile, StageEntry};
use crate::stage::pretrain::Measured;
use crate::stage::{Arm, Finished, Kind, Overview, QUALITY, Shown, pretrain, quality_cells};

/// A run's results.
#[derive(Default, Serialize)]
pub struct Report {
    /// The name of the run or the GLUE results; several are joined with commas.
    pub name: String,
    /// In the order they run; empty if there are only GLUE results.
    pub stages: Vec<StageReport>,
    /// The baseline first; empty without a comparison.
    pub comparison: Vec<Arm>,
    /// A run's own file; `None` for a training by itself, GLUE results, and several runs.
    #[serde(skip)]
    file: Option<RunFile>,
    #[serde(skip)]
    sections: Vec<Section>,
    /// The sections that are about the comparison.
    #[serde(skip)]
    compared: Range<usize>,
    #[serde(skip)]
    models: Vec<Named>,
    #[serde(skip)]
    glue: Option<ScoreTable>,
}

/// A stage, with its result if it has finished.
#[derive(Serialize)]
pub struct StageReport {
    /// The stage as listed in `run.json`.
    #[serde(flatten)]
    pub entry: StageEntry,
    /// Whether the stage has a `stage.json`.
    pub finished: bool,
    /// Whether it has begun and not finished.
    pub unfinished: bool,
    /// Wall-clock time of all processes that worked on the stage; `None` until it has finished.
    pub seconds: Option<f64>,
    /// The result in `stage.json`; `None` until the stage has finished.
    pub result: Option<Value>,
    #[serde(skip)]
    shown: Option<Shown>,
    /// What made it, or will.
    #[serde(skip)]
    settings: Option<Value>,
}

impl StageReport {
    /// The time it took, or why there is none.
    fn time(&self) -> String {
        let left_out = match self.entry.left_out {
            Some(LeftOut::WithoutGlue) => "left out (no GLUE)",
            Some(LeftOut::NotSelected) => "left out",
            None => "not begun",
        };
        match self.seconds {
            Some(seconds) => duration(seconds),
            None if self.finished => "-".to_owned(),
            None if self.unfinished => "not finished".to_owned(),
            None => left_out.to_owned(),
        }
    }
}

/// A table with surrounding text.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Section {
    /// The heading, without markup.
    pub title: String,
    /// A paragraph before the table; may be empty.
    pub about: String,
    /// Shown between `about` and `notes`.
    pub table: Table,
    /// Lines after the table, each its own paragraph in Markdown.
    pub notes: Vec<String>,
}

/// The file that `cargo xtask glue` leaves in its directory.
const GLUE: &str = "glue.json";

impl Report {
    /// Reads run directories, trainings, and results of `cargo xtask glue`. Several are shown side by side: the names of
    /// their stages and GLUE results say which run they belong to.
    pub fn of(places: &[PathBuf], beside: &Beside) -> Result<Self> {
        let mut reports = places.iter().map(|place| Report::read(place)).collect::<Result<Vec<_>>>()?;
        let mut report = match reports.len() {
            1 => reports.remove(0),
            _ => Report::side_by_side(reports),
        };
        report.glue = glue_table::table(&report.models, beside)?;
        Ok(report)
    }

    fn read(place: &Path) -> Result<Self> {
        let file = if place.is_dir() { place.join(GLUE) } else { place.to_owned() };
        if place.join("metrics.jsonl").is_file() && !place.join("run.json").exists() {
            return Report::of_training(place);
        }
        if place.join("run.json").exists() || !file.is_file() {
            return Report::of_run(place);
        }
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let report =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
        let name = name_of(if place.is_dir() { place } else { place.parent().unwrap_or(place) });
        Ok(Report { name: name.clone(), models: vec![Named { name, report }], ..Report::default() })
    }

    /// A training by itself, finished or not, as `cargo xtask pretrain` leaves it.
    fn of_training(place: &Path) -> Result<Self> {
        let name = name_of(place);
        let (kind, inputs) = (pretrain::KIND.name.into(), Vec::new());
        let entry =
            StageEntry { name: name.clone(), kind, inputs, seed_set: None, published: None, left_out: None };
        let evaluations = Measured::read(place)?.evaluations;
        let result = pretrain::trained_in(place)?.map(serde_json::to_value).transpose()?;
        let shown = match (&result, evaluations.last()) {
            (Some(result), _) => Some((pretrain::KIND.show)(&finished(&entry, place, result))?),
            (None, Some(last)) => Some(Shown {
                overview: Overview {
                    steps: Some(last.step),
                    tokens: Some(last.tokens),
                    quality: Some(last.quality),
                    ..Overview::default()
                },
                ..Shown::default()
            }),
            (None, None) => None,
        };
        let finished = result.is_some();
        let (unfinished, settings) = (!finished, None);
        let stages =
            vec![StageReport { entry, finished, unfinished, seconds: None, shown, result, settings }];
        let mut sections = stage_tables(&stages);
        sections.push(curve(&evaluations));
        sections.extend(holes(&stages, &[]));
        Ok(Report { name, stages, sections, ..Report::default() })
    }

    fn side_by_side(reports: Vec<Report>) -> Self {
        let names: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
        let mut all = Report { name: names.join(", "), ..Report::default() };
        let same_names = (1..names.len()).any(|at| names[..at].contains(&names[at]));
        for (number, Report { name, stages, models, .. }) in (1..).zip(reports) {
            // Two runs of one recipe have the same name.
            let run = if same_names { format!("{name} ({number})") } else { name.clone() };
            let full = |own: &str| if own == name { run.clone() } else { format!("{run}/{own}") };
            all.models
                .extend(models.into_iter().map(|Named { name, report }| Named { name: full(&name), report }));
            all.stages.extend(stages.into_iter().map(|mut stage| {
                stage.entry.name = full(&stage.entry.name);
                stage.entry.seed_set.iter_mut().for_each(|set| set.stage = full(&set.stage));
                stage
            }));
        }
        if !all.stages.is_empty() {
            all.sections = stage_tables(&all.stages);
            all.sections.extend(holes(&all.stages, &[]));
        }
        all
    }

    /// Reads a run's directory; stages may be unfinished.
    fn of_run(run: &Path) -> Result<Self> {
        let file = RunFile::read(run)?;
        let stage = |entry: &StageEntry| {
            let directory = run.join(&entry.name);
            let record = Record::read(&directory)?;
            let shown = record.as_ref().map(|record| {
                let show =
                    Kind::named(&entry.kind).map_or(Shown::parameters as fn(&_) -> _, |kind| kind.show);
                show(&finished(entry, &directory, &record.result))
            });
            let begun = if record.is_none() { journal::begun(&directory)? } else { None };
            Ok(StageReport {
                entry: entry.clone(),
                finished: record.is_some(),
                unfinished: begun.is_some(),
                seconds: record.as_ref().map(|record| record.seconds),
                shown: shown.transpose()?,
                settings: match &record {
                    Some(record) => Some(record.settings()),
                    None => begun.as_ref().map(journal::settings),
                },
                result: record.map(|record| record.result),
            })
        };
        let mut stages = file.stages.iter().map(stage).collect::<Result<Vec<_>>>()?;
        let mut sections = stage_tables(&stages);
        let tables = sections.len();
        let (baselines, fused, missing) = arms(run, &file, &stages)?;
        let arms: Vec<Arm> = baselines.iter().chain(&fused).cloned().collect();
        if !baselines.is_empty() && !fused.is_empty() {
            let keys = seeds::apart_from_seeds(&stages);
            let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
            let chance = Chance {
                groups: names.iter().filter_map(|name| Some((*name, keys.get(name)?.as_str()))).collect(),
                seeds: seeds::variation(&stages, &names),
            };
            sections.extend(comparison::sections(&baselines, &fused, &chance));
            if let Some(section) = sections.last_mut().filter(|_| !missing.is_empty()) {
                section.notes.push(format!("Not finished, so not compared: {}.", missing.join(", ")));
            }
        }
        sections.extend(published::section(&stages));
        let compared = tables..sections.len();
        let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
        sections.extend(holes(&stages, &names));
        let models = models(&mut stages);
        let name = file.name.clone();
        let file = Some(file);
        Ok(Report { name, stages, comparison: arms, file, sections, compared, models, glue: None })
    }

    /// The sections about stages, those that compare models, and that about filled holes.
    fn sections_by_part(&self) -> (Vec<Section>, Vec<Section>, Option<Section>) {
        let (compared, mut stages) = (self.sections[self.compared.clone()].to_vec(), self.sections.clone());
        stages.drain(self.compared.clone());
        let holes = stages.pop_if(|last| last.title == holes::TITLE);
        (stages, compared, holes)
    }

    /// The report as plain text, with underlined headings.
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

    /// The GLUE table as comma-separated values.
    pub fn csv(&self) -> Result<String> {
        let csv = self.glue.as_ref().map(ScoreTable::csv);
        csv.context("there are no GLUE results, of which alone there is a table in CSV")
    }

    /// The report as a Markdown document.
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

fn finished<'a>(entry: &'a StageEntry, directory: &'a Path, result: &'a Value) -> Finished<'a> {
    Finished {
        name: &entry.name,
        seed_set: entry.seed_set.as_ref(),
        inputs: &entry.inputs,
        directory,
        result,
    }
}

fn overview(stages: &[StageReport]) -> Section {
    let [loss, accuracy, gain] = QUALITY;
    let mut table =
        Table::new(["stage", "kind", "parameters", "steps", "tokens", loss, accuracy, gain, "time"]);
    let mut several = false;
    for (at, stage) in stages.iter().enumerate() {
        // The finished stages of all sets of seeds make one row, where the first of them is.
        let is_fellow = |other: &&StageReport| other.entry.recipe_name() == stage.entry.recipe_name();
        let fellows: Vec<&StageReport> = stages.iter().filter(is_fellow).collect();
        let together = fellows.len() > 1 && fellows.iter().all(|stage| stage.finished);
        if !together {
            table.rows.push(overview_row(&stage.entry.name, &[stage]));
        } else if !stages.iter().take(at).any(|other| is_fellow(&other)) {
            several = true;
            let name = format!("{} × {}", stage.entry.recipe_name(), fellows.len());
            table.rows.push(overview_row(&name, &fellows));
        }
    }
    let mut about = "Loss (mean cross-entropy of a target token, in nats) and token accuracy on held-out text. The context \
                     gain is what the loss rises by if every example gets another's input: with a gain of 0, a model \
                     does not read its input."
        .to_owned();
    if several {
        about += " Mean ± standard deviation over sets of seeds; times of all sets together.";
    }
    Section { title: "Stages".into(), about, table, ..Section::default() }
}

/// A row of stages that differ by seeds alone, or of one stage.
fn overview_row(name: &str, stages: &[&StageReport]) -> Vec<String> {
    let overviews: Vec<Overview> = stages
        .iter()
        .map(|stage| stage.shown.as_ref().map(|shown| shown.overview).unwrap_or_default())
        .collect();
    let first = overviews.first().copied().unwrap_or_default();
    let number = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let kind = stages.first().map_or(String::new(), |stage| stage.entry.kind.clone());
    let mut row = vec![name.to_owned(), kind];
    row.extend([
        number(first.parameters.map(thousands)),
        number(first.steps.map(|steps| steps.to_string())),
        number(first.tokens.map(|tokens| count(tokens as f64))),
    ]);
    let qualities: Vec<Quality> = overviews.iter().filter_map(|overview| overview.quality).collect();
    row.extend(quality_cells(&qualities));
    let seconds: Option<f64> = stages.iter().map(|stage| stage.seconds).sum();
    row.push(match (stages, seconds) {
        ([_, _, ..], Some(seconds)) => duration(seconds),
        _ => stages.first().map_or(String::new(), |stage| stage.time()),
    });
    row
}

/// The number of evaluations that a table shows of a training.
const CURVE_ROWS: usize = 12;

/// The evaluations of a training, or as many of them at equal distances, with the first and the last.
fn curve(evaluations: &[EvaluationPoint]) -> Section {
    let mut table = Table::new(["step", "tokens"]);
    table.header.extend(QUALITY.map(str::to_owned));
    let last = evaluations.len().saturating_sub(1);
    let rows = last.min(CURVE_ROWS - 1);
    for at in (0..=rows).map(|row| row * last / rows.max(1)) {
        let Some(point) = evaluations.get(at) else { continue };
        let mut row = vec![point.step.to_string(), count(point.tokens as f64)];
        row.extend(quality_cells(&[point.quality]));
        table.rows.push(row);
    }
    Section { title: "On held-out text".into(), table, ..Section::default() }
}

/// The last component of a path.
fn name_of(place: &Path) -> String {
    place.file_name().unwrap_or(place.as_os_str()).to_string_lossy().into_owned()
}

/// The table of all stages, and those that kinds of stages have for themselves.
fn stage_tables(stages: &[StageReport]) -> Vec<Section> {
    let mut sections = vec![overview(stages)];
    for StageReport { entry, shown, .. } in stages {
        let Some(row) = shown.as_ref().and_then(|shown| shown.row.as_ref()) else { continue };
        let at = sections.iter().position(|section| section.title == row.title).unwrap_or_else(|| {
            let mut table = Table::new(["stage"]);
            table.header.extend(row.header.iter().map(|name| (*name).to_owned()));
            sections.push(Section { title: row.title.into(), table, ..Section::default() });
            sections.len() - 1
        });
        let cells = std::iter::once(&entry.name).chain(&row.cells).cloned();
        sections[at].table.rows.push(cells.collect());
    }
    sections
}

/// How models fill in blanks: those of these names, or all if none is named.
fn holes(stages: &[StageReport], names: &[&str]) -> Option<Section> {
    let named = |stage: &&StageReport| names.is_empty() || names.contains(&stage.entry.name.as_str());
    // Of models that differ by seeds alone, one is enough.
    let is_first = |stage: &&StageReport| stage.entry.seed_set.as_ref().is_none_or(|set| set.number == 1);
    let shown = stages
        .iter()
        .filter(|stage| named(stage) && is_first(stage))
        .filter_map(|stage| Some((stage.entry.name.as_str(), &stage.shown.as_ref()?.examples)));
    holes::section(&results::examples::side_by_side(shown))
}

/// The baseline and the other arms, with each set of seeds, whose training has finished, and the names of the
/// others. None without the baseline.
fn arms(run: &Path, file: &RunFile, stages: &[StageReport]) -> Result<(Vec<Arm>, Vec<Arm>, Vec<String>)> {
    let (mut baselines, mut arms, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let Some(comparison) = &file.comparison else { return Ok((baselines, arms, missing)) };
    let of = |name: &String, missing: &mut Vec<String>| -> Result<Vec<Arm>> {
        let is_meant = |stage: &&StageReport| stage.entry.recipe_name() == name || stage.entry.name == *name;
        let mut found = Vec::new();
        for StageReport { entry, result, .. } in stages.iter().filter(is_meant) {
            let Some(result) = result else {
                missing.push(entry.name.clone());
                continue;
            };
            let arm = Kind::named(&entry.kind).and_then(|kind| kind.arm);
            let arm = arm.with_context(|| format!("stage {name:?} has nothing to compare"))?;
            found.push(arm(&finished(entry, &run.join(&entry.name), result))?);
        }
        Ok(found)
    };
    baselines = of(&comparison.baseline, &mut missing)?;
    if !baselines.is_empty() {
        for name in &comparison.arms {
            arms.extend(of(name, &mut missing)?);
        }
    }
    Ok((baselines, arms, missing))
}

/// The stages' results on GLUE; those of all sets of seeds together.
fn models(stages: &mut [StageReport]) -> Vec<Named> {
    let mut models: Vec<Named> = Vec::new();
    for stage in stages {
        let Some(report) = stage.shown.as_mut().and_then(|shown| shown.glue.take()) else { continue };
        let name = stage.entry.recipe_name();
        match models.iter_mut().find(|model| model.name == name) {
            Some(model) => model.report.seeds.extend(report.seeds),
            None => models.push(Named { name: name.to_owned(), report }),
        }
    }
    models
}
