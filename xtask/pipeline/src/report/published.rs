//! What was measured beside what others have published.

use glue_eval::metrics::spearman;
use glue_eval::{AtStep, GlueScore, Summary, Task};
use serde_json::Value;

use super::table::Table;
use super::{Section, StageReport};
use crate::numbers::{mean, sets};
use crate::stage::{Figure, Published};

/// Models of which two figures must be known before their orders are compared.
const LEAST: usize = 3;

/// A table of the figures that a recipe says are published of its stages' models, if any of these has been measured.
pub fn section(stages: &[StageReport]) -> Option<Section> {
    let mut table = Table::new(["stage", "figure", "here", "published", "source"]);
    let mut pairs: Vec<(Figure, (f64, f64))> = Vec::new();
    for (at, stage) in stages.iter().enumerate() {
        let Some(published) = &stage.entry.published else { continue };
        let name = stage.entry.recipe_name();
        if stages.iter().take(at).any(|other| other.entry.recipe_name() == name) {
            continue;
        }
        let fellows: Vec<&StageReport> =
            stages.iter().filter(|other| other.entry.recipe_name() == name).collect();
        for (figure, value) in published.figures() {
            let measured: Vec<f64> = fellows.iter().flat_map(|stage| stage.measured(figure)).collect();
            let digits = figure.digits();
            pairs.extend(Summary::of(&measured).map(|here| (figure, (here.mean, value))));
            let finished = fellows.iter().filter(|stage| stage.finished).count();
            let here = mean(&measured, digits).map(|here| here + &sets(finished, fellows.len()));
            let Published { source, .. } = published;
            table.rows.push(vec![
                name.to_owned(),
                figure.name().to_owned(),
                here.unwrap_or_else(|| "-".to_owned()),
                format!("{value}"),
                source.clone(),
            ]);
        }
    }
    if pairs.is_empty() {
        return None;
    }
    let notes = [Figure::Loss, Figure::Accuracy, Figure::Glue].into_iter().filter_map(|figure| {
        let both = pairs.iter().filter(|(of, _)| *of == figure).map(|(_, pair)| *pair).collect::<Vec<_>>();
        let models = both.len();
        let orders = spearman(&both);
        (models >= LEAST && orders.is_finite()).then(|| {
            format!("{}: Spearman's rank correlation with the published order is {orders:.2} over {models} models.", figure.name())
        })
    });
    let tasks = stages.iter().filter(|stage| stage.entry.published.is_some()).flat_map(StageReport::glue);
    let tasks = tasks.map(|score| score.tasks().count()).min();
    let few = tasks.filter(|tasks| *tasks < Task::ALL.len()).map(|tasks| {
        format!("{}: averages here are of {tasks} of the {} tasks.", Figure::Glue.name(), Task::ALL.len())
    });
    let about = "Figures from elsewhere, of models that may differ from these in size and in the text that they were trained on. \
                 If they do, only the order can be compared."
        .to_owned();
    Some(Section { title: "Published figures".into(), about, notes: notes.chain(few).collect(), table })
}

impl StageReport {
    /// A figure of the stage's model; of a fine-tuning, one for each seed.
    fn measured(&self, figure: Figure) -> Vec<f64> {
        let number = |key: &str| self.result.as_ref()?.get(key).and_then(Value::as_f64);
        match figure {
            Figure::Loss => number("loss").into_iter().collect(),
            Figure::Accuracy => number("accuracy").map(|share| 100.0 * share).into_iter().collect(),
            Figure::Glue => self.glue().iter().filter_map(GlueScore::average).collect(),
        }
    }

    /// The scores of a fine-tuning at each task's best step, one for each seed.
    fn glue(&self) -> Vec<GlueScore> {
        let report = self.shown.as_ref().and_then(|shown| shown.glue.as_ref());
        report.map(|report| report.scores(AtStep::Best)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::section;
    use crate::report::StageReport;
    use crate::run::StageEntry;
    use crate::stage::{Published, SeedSet};

    fn stage(name: &str, set: u64, published: f64, accuracy: Option<f64>) -> StageReport {
        let seed_set = Some(SeedSet { stage: name.to_owned(), number: set });
        let source = "Table 2".to_owned();
        let published = Some(Published { source, loss: None, accuracy: Some(published), glue: None });
        let (name, kind, inputs) = (SeedSet::name(name, set), "pretrain".to_owned(), Vec::new());
        StageReport {
            entry: StageEntry { name, kind, inputs, seed_set, published, left_out: None },
            finished: accuracy.is_some(),
            unfinished: false,
            seconds: None,
            result: accuracy.map(|accuracy| json!({ "loss": 3.0, "accuracy": accuracy })),
            shown: None,
            settings: None::<Value>,
        }
    }

    #[test]
    fn means_and_orders_are_compared() {
        let stages = [
            stage("a", 1, 60.0, Some(0.20)),
            stage("a", 2, 60.0, Some(0.24)),
            stage("b", 1, 61.5, Some(0.40)),
            stage("b", 2, 61.5, None),
            stage("c", 1, 63.0, Some(0.30)),
            stage("d", 1, 62.0, None),
        ];
        let section = section(&stages).expect("a section");
        let rows: Vec<&[String]> = section.table.rows.iter().map(Vec::as_slice).collect();
        assert_eq!(rows[0], ["a", "accuracy, %", "22.00 ± 2.83", "60", "Table 2"]);
        assert_eq!(rows[1], ["b", "accuracy, %", "40.00 (1 of 2)", "61.5", "Table 2"]);
        assert_eq!(rows[3], ["d", "accuracy, %", "-", "62", "Table 2"]);
        // Ranks 1, 3, 2 and 1, 2, 3: 1 - 6 · 2 / (3 · 8).
        let note = "accuracy, %: Spearman's rank correlation with the published order is 0.50 over 3 models.";
        assert_eq!(section.notes, [note]);
        assert!(super::section(&stages[5..]).is_none(), "nothing has been measured");
    }
}
