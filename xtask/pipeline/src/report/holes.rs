//! Held-out holes as models fill them, side by side.

use super::Section;
use super::results::{Example, Hole};
use super::table::Table;

/// What the section is called.
pub const TITLE: &str = "Filling in blanks";
/// The number of holes shown.
const SHOWN: usize = 12;
/// Words of the input shown before a hole and after it.
const BEFORE: usize = 6;
const AFTER: usize = 4;
/// Stands for a hole.
const HOLE: &str = "___";

/// A table of holes; `None` without any. Shows the models that were asked what the first was asked.
pub fn section(examples: &[Example]) -> Option<Section> {
    let names: Vec<&str> = examples.first()?.models.iter().map(|model| model.name.as_str()).collect();
    let alike =
        |example: &&Example| example.models.iter().map(|model| model.name.as_str()).eq(names.iter().copied());
    let examples: Vec<&Example> = examples.iter().filter(alike).collect();
    let mut table = Table::new(["in the text", "what stood there"]);
    table.header.extend(names.iter().map(|name| (*name).to_owned()));
    let each = SHOWN.div_ceil(examples.len().max(1));
    for example in &examples {
        for (at, expected) in example.expected.iter().enumerate().take(each) {
            let mut row = vec![around(example, at), cell(expected)];
            row.extend(example.models.iter().map(|model| cell(&model.holes[at].text)));
            table.rows.push(row);
        }
    }
    table.rows.truncate(SHOWN);
    let right = names.iter().enumerate().map(|(at, name)| {
        let holes = examples.iter().flat_map(|example| &example.models[at].holes);
        format!("{name} {}", holes.filter(|Hole { right, .. }| *right).count())
    });
    let note = format!(
        "Holes of all these examples that are filled with exactly what stood there, of {}: {}.",
        examples.iter().map(|example| example.expected.len()).sum::<usize>(),
        right.collect::<Vec<_>>().join(", ")
    );
    let about = format!(
        "What the trained models fill the holes of held-out text with, taking the most likely token each time. {HOLE} is \
         the hole, and … another one. A hole may begin or end within a word."
    );
    Some(Section { title: TITLE.into(), about, table, notes: vec![note] })
}

/// The hole among the words around it.
fn around(example: &Example, hole: usize) -> String {
    let Example { input, sentinels, expected, .. } = example;
    let (before, after) = input.split_once(&sentinels[hole]).unwrap_or(("", input));
    let others = || sentinels.iter().zip(expected);
    let mark = |text: String, (sentinel, expected): (&String, &String)| {
        text.replace(sentinel, &format!("{}…", gap(expected)))
    };
    let words = |text: &str| {
        let shown = others().fold(text.to_owned(), mark);
        shown.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let right = if after.starts_with(' ') { " " } else { "" };
    let (before, after) = (words(before), words(after));
    let before = before[before.len().saturating_sub(BEFORE)..].join(" ");
    let after = after[..after.len().min(AFTER)].join(" ");
    format!("{before}{}{HOLE}{right}{after}", gap(&expected[hole])).trim_start().to_owned()
}

/// What stands before a hole: nothing within a word.
fn gap(expected: &str) -> &'static str {
    if expected.starts_with(' ') { " " } else { "" }
}

/// What fills a hole, without line breaks.
fn cell(filled: &str) -> String {
    let words: Vec<&str> = filled.split_whitespace().collect();
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::super::results::examples::side_by_side;
    use super::*;
    use crate::stage::examples::{self, Examples, Span};

    fn examples(filled: [Option<&str>; 2]) -> Examples {
        let span = |sentinel: &str, expected: &str, filled: Option<&str>| Span {
            sentinel: sentinel.into(),
            expected: expected.into(),
            filled: filled.map(str::to_owned),
        };
        let input = "One that lives on the<extra_id_0> of a river, or swim<extra_id_1> in it.".into();
        let [first, second] = filled;
        let spans = vec![span("<extra_id_0>", " bank", first), span("<extra_id_1>", "s", second)];
        Examples { examples: vec![examples::Example { input, spans }] }
    }

    #[test]
    fn holes_stand_in_their_words() {
        let (one, other) = (examples([Some(" bank"), Some("ming")]), examples([Some(" "), None]));
        let section = section(&side_by_side([("one", &one), ("other", &other)])).expect("a section");
        let rows = [
            ["One that lives on the ___ of a river, or", "bank", "bank", "-"],
            ["… of a river, or swim___ in it.", "s", "ming", "-"],
        ];
        assert_eq!(section.table.rows, rows.map(|row| row.map(str::to_owned).to_vec()));
        assert_eq!(section.notes.len(), 1);
        assert!(section.notes[0].ends_with("of 2: one 1, other 0."), "{}", section.notes[0]);
    }

    #[test]
    fn a_model_that_repeats_itself_is_cut_short() {
        let said = " \u{201c}the New York Times\u{201d},".repeat(9);
        let one = examples([Some(&said), None]);
        let section = section(&side_by_side([("one", &one)])).expect("a section");
        let shown = &section.table.rows[0][2];
        assert!(shown.ends_with('…') && shown.chars().count() <= 49, "{shown}");
    }

    #[test]
    fn models_with_other_questions_are_left_out() {
        let one = examples([None, None]);
        let mut other = examples([None, None]);
        other.examples[0].spans[1].expected = "mer".into();
        let section = section(&side_by_side([("one", &one), ("other", &other)])).expect("a section");
        assert_eq!(section.table.header.len(), 3);
        assert!(super::section(&side_by_side([("none", &Examples::default())])).is_none());
    }
}
