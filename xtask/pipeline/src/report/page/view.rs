//! What the template of the page puts into words and tables.

use serde::Serialize;

use super::charts::picture_id;
use super::graph::Picture;
use super::highlight::{Piece, pieces};
use super::tables;
use crate::numbers::{bytes, duration};
use crate::report::results::{
    Example, FusedModel, GlueResults, Matrix, Origin, Provenance, Ran, Results, RunResults, SymmetryPoint,
};
use crate::report::{Section, plot};
use crate::stage::texts;

/// A page, section by section. What is empty is left out.
#[derive(Serialize)]
pub struct View<'a> {
    title: &'a str,
    /// A line below the title.
    summary: String,
    /// What the comparisons come to.
    verdicts: Vec<&'a str>,
    has_curves: bool,
    has_context_gain: bool,
    has_passes: bool,
    seeds: bool,
    sets: Option<Section>,
    runs: Vec<Run<'a>>,
    costs: Option<Section>,
    glue: Option<Glue<'a>>,
    weights: Vec<Weights<'a>>,
    has_symmetry: bool,
    examples: Vec<Text<'a>>,
    /// How many of their holes are filled as the text fills them.
    holes: Vec<&'a str>,
}

#[derive(Serialize)]
struct Run<'a> {
    name: &'a str,
    graph: Picture,
    tables: &'a [Section],
    comparison: &'a [Section],
    provenance: Source<'a>,
    /// Errors of stages that failed, with their names.
    failures: Vec<(&'a str, &'a str)>,
}

#[derive(Serialize)]
struct Source<'a> {
    place: &'a str,
    command: String,
    began: Option<u64>,
    machines: Vec<Computer<'a>>,
    texts: String,
    text_files: Vec<TextFile<'a>>,
    /// How many files are not among them.
    more_text_files: usize,
    stages: Vec<Stage<'a>>,
    recipe: Vec<File<'a>>,
}

#[derive(Serialize)]
struct TextFile<'a> {
    name: &'a str,
    size: String,
    sha256: &'a str,
    sampled: bool,
}

/// More files than this are only counted.
const TEXT_FILES: usize = 64;

#[derive(Serialize)]
struct Computer<'a> {
    description: String,
    stages: &'a [String],
}

#[derive(Serialize)]
struct Stage<'a> {
    name: &'a str,
    seed: String,
    hash: String,
    settings: Vec<Piece>,
}

#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    pieces: Vec<Piece>,
}

#[derive(Serialize)]
struct Glue<'a> {
    #[serde(flatten)]
    results: &'a GlueResults,
    has_curves: bool,
    has_courses: bool,
}

#[derive(Serialize)]
struct Weights<'a> {
    name: &'a str,
    fusion: &'a str,
    method: &'a str,
    parents: String,
    symmetry: &'a [SymmetryPoint],
    matrices: Vec<Pair<'a>>,
}

/// A matrix as fused and as trained.
#[derive(Serialize)]
struct Pair<'a> {
    id: String,
    name: &'a str,
    shape: String,
    snapshots: Vec<Blocks>,
}

#[derive(Serialize)]
struct Blocks {
    label: String,
    rows: Vec<Vec<String>>,
}

/// An example with its holes numbered.
#[derive(Serialize)]
struct Text<'a> {
    parts: Vec<Part<'a>>,
    #[serde(flatten)]
    example: &'a Example,
}

/// A piece of a text, then a hole unless it is the last.
#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
    hole: Option<usize>,
}

impl<'a> View<'a> {
    pub fn new(results: &'a Results) -> Self {
        let has = |name: &str| results.sets.iter().any(|set| set.band.values.contains_key(name));
        View {
            title: &results.name,
            summary: summary(results),
            verdicts: verdicts(results),
            has_curves: has("loss"),
            has_context_gain: has("context_gain"),
            has_passes: results.sets.iter().any(|set| set.passes.is_some()),
            seeds: results.sets.iter().any(|set| set.band.seeds > 1),
            sets: tables::sets(results).filter(|_| results.trainings.len() > 1),
            runs: results.runs.iter().map(run).collect(),
            costs: tables::costs(results),
            glue: results.glue.as_ref().map(|own| Glue {
                has_curves: !plot::glue(results).is_empty(),
                has_courses: plot::courses(results).is_some(),
                results: own,
            }),
            weights: results.weights.iter().enumerate().map(|(at, model)| weights(at, model)).collect(),
            has_symmetry: plot::symmetry(results).is_some(),
            examples: results.examples.iter().map(text).collect(),
            holes: results.runs.iter().flat_map(|run| &run.holes).map(String::as_str).collect(),
        }
    }
}

/// What the comparisons come to at the end: at equal steps, and for the baseline's computation. The tables have
/// the others.
fn verdicts(results: &Results) -> Vec<&str> {
    let ends = results.runs.iter().flat_map(|run| run.comparison.iter().take(2));
    ends.filter_map(|section| section.notes.last()).map(String::as_str).collect()
}

fn summary(results: &Results) -> String {
    let nodes = || results.runs.iter().flat_map(|run| &run.stages);
    let (all, finished) = (nodes().count(), nodes().filter(|node| node.state.is_finished()).count());
    let mut parts = Vec::new();
    match (all, finished) {
        (0, _) => {}
        (1, 1) => parts.push("one stage, finished".to_owned()),
        (all, finished) if all == finished => parts.push(format!("{all} stages, all finished")),
        (all, finished) => parts.push(format!("{finished} of {all} stages finished")),
    }
    let seconds: f64 = nodes().filter_map(|node| node.seconds).sum();
    if seconds > 0.0 {
        parts.push(format!("{} of work", duration(seconds)));
    }
    let mut machines: Vec<&str> = Vec::new();
    for ran in results.runs.iter().flat_map(|run| &run.provenance.machines) {
        if !machines.contains(&ran.machine.compute.as_str()) {
            machines.push(&ran.machine.compute);
        }
    }
    parts.extend((!machines.is_empty()).then(|| format!("on {}", machines.join(" and "))));
    parts.join(" · ")
}

fn run(run: &RunResults) -> Run<'_> {
    let failures = run.stages.iter().filter_map(|node| match &node.state {
        crate::report::results::State::Failed { error } => Some((node.name.as_str(), error.as_str())),
        _ => None,
    });
    Run {
        name: &run.name,
        graph: Picture::new(&run.stages),
        tables: &run.tables,
        comparison: &run.comparison,
        provenance: source(&run.provenance),
        failures: failures.collect(),
    }
}

fn source(provenance: &Provenance) -> Source<'_> {
    let Provenance { place, recipe, command, began, machines, texts, text_files, stages } = provenance;
    Source {
        place,
        command: command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
        began: *began,
        machines: machines.iter().map(computer).collect(),
        texts: texts.join(", "),
        text_files: text_files.iter().take(TEXT_FILES).map(text_file).collect(),
        more_text_files: text_files.len().saturating_sub(TEXT_FILES),
        stages: stages.iter().map(stage).collect(),
        recipe: recipe.iter().map(|file| File { name: &file.name, pieces: pieces(&file.text) }).collect(),
    }
}

fn text_file(file: &texts::TextFile) -> TextFile<'_> {
    TextFile { name: &file.name, size: bytes(file.bytes as f64), sha256: &file.sha256, sampled: file.sampled }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn computer(ran: &Ran) -> Computer<'_> {
    let machine = &ran.machine;
    let parts = [
        Some(machine.compute.clone()),
        machine.processor.clone(),
        Some(match machine.threads {
            1 => "1 thread".to_owned(),
            threads => format!("{threads} threads"),
        }),
        machine.memory.map(|memory| format!("{} of memory", bytes(memory as f64))),
        Some(machine.system.clone()),
        Some(format!("deep-fusion {}", machine.version)),
    ];
    Computer { description: parts.into_iter().flatten().collect::<Vec<_>>().join(", "), stages: &ran.stages }
}

fn stage(origin: &Origin) -> Stage<'_> {
    let settings = origin.settings.as_ref().and_then(|settings| toml::to_string(&settings).ok());
    Stage {
        name: &origin.name,
        seed: origin.seed.map(|seed| seed.to_string()).unwrap_or_default(),
        hash: origin.weights.clone().or_else(|| origin.tokenizer.clone()).unwrap_or_default(),
        settings: settings.map(|settings| pieces(&settings)).unwrap_or_default(),
    }
}

fn weights<'a>(at: usize, model: &'a FusedModel) -> Weights<'a> {
    let pair = |(number, matrix): (usize, &'a Matrix)| Pair {
        id: picture_id(at, number),
        name: &matrix.name,
        shape: format!("{} × {}", matrix.shape[0], matrix.shape[1]),
        snapshots: matrix
            .snapshots
            .iter()
            .map(|snapshot| Blocks {
                label: snapshot.label(),
                rows: snapshot
                    .blocks
                    .iter()
                    .map(|row| row.iter().map(|value| rms(*value)).collect())
                    .collect(),
            })
            .collect(),
    };
    Weights {
        name: model.training.as_deref().unwrap_or(&model.fusion),
        fusion: &model.fusion,
        method: &model.method,
        parents: model.parents.join(" + "),
        symmetry: &model.symmetry,
        matrices: model.matrices.iter().enumerate().map(pair).collect(),
    }
}

/// A root mean square with three digits.
pub(in crate::report) fn rms(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value.abs() < 1e-3 => format!("{value:.1e}"),
        value if value.abs() < 1.0 => format!("{value:.4}"),
        value => format!("{value:.2}"),
    }
}

/// Cuts a text at its sentinels.
fn text(example: &Example) -> Text<'_> {
    let (mut parts, mut rest) = (Vec::new(), example.input.as_str());
    for (number, sentinel) in (1..).zip(&example.sentinels) {
        let Some((before, behind)) = rest.split_once(sentinel.as_str()) else { break };
        parts.push(Part { text: before, hole: Some(number) });
        rest = behind;
    }
    parts.push(Part { text: rest, hole: None });
    Text { parts, example }
}

#[cfg(test)]
mod tests {
    use super::{Example, quoted, rms, text};

    #[test]
    fn holes_are_numbered() {
        let holes = |input: &str| {
            let sentinels = vec!["<extra_id_0>".to_owned(), "<extra_id_1>".to_owned()];
            let (expected, models) = (Vec::new(), Vec::new());
            let example = Example { input: input.into(), sentinels, expected, models };
            let parts: Vec<(String, Option<usize>)> =
                text(&example).parts.iter().map(|part| (part.text.to_owned(), part.hole)).collect();
            parts
        };
        assert_eq!(
            holes("a <extra_id_0> b<extra_id_1>"),
            [("a ".to_owned(), Some(1)), (" b".to_owned(), Some(2)), (String::new(), None)]
        );
        assert_eq!(holes("no hole"), [("no hole".to_owned(), None)]);
    }

    #[test]
    fn words_of_a_command() {
        assert_eq!(quoted("--set"), "--set");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!([0.0, 1e-5, 0.12345, 3.21].map(rms), ["0", "1.0e-5", "0.1235", "3.21"]);
    }
}
