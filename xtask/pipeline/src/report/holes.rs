//! Held-out holes as models fill them, side by side.

use super::Section;
use super::table::Table;
use crate::stage::examples::{Example, Examples, Span};

/// What the section is called.
pub const TITLE: &str = "Filling in blanks";
/// The number of holes shown.
const SHOWN: usize = 12;
/// Words of the input shown before a hole and after it.
const BEFORE: usize = 6;
const AFTER: usize = 4;
/// Stands for a hole.
const HOLE: &str = "___";

/// A table of holes; `None` without any. Models that were asked other questions than the first are left out.
pub fn section(models: &[(&str, &Examples)]) -> Option<Section> {
    let asked = models.iter().find(|(_, examples)| !examples.examples.is_empty())?.1;
    let models: Vec<_> = models.iter().filter(|(_, examples)| examples.asks_like(asked)).collect();
    let mut table = Table::new(["in the text", "what stood there"]);
    table.header.extend(models.iter().map(|(name, _)| (*name).to_owned()));
    let each = SHOWN.div_ceil(asked.examples.len());
    for (at, example) in asked.examples.iter().enumerate() {
        for (hole, span) in example.spans.iter().enumerate().take(each) {
            let mut row = vec![around(example, span), cell(Some(&span.expected))];
            row.extend(models.iter().map(|(_, own)| cell(own.examples[at].spans[hole].filled.as_deref())));
            table.rows.push(row);
        }
    }
    table.rows.truncate(SHOWN);
    let right = models.iter().map(|(name, own)| {
        let right = own.spans().filter(|span| span.filled.as_ref() == Some(&span.expected)).count();
        format!("{name} {right}")
    });
    let note = format!(
        "Holes of all these examples that are filled with exactly what stood there, of {}: {}.",
        asked.spans().count(),
        right.collect::<Vec<_>>().join(", ")
    );
    let about = format!(
        "What the trained models fill the holes of held-out text with, taking the most likely token each time. {HOLE} is \
         the hole, and … another one. A hole may begin or end within a word."
    );
    Some(Section { title: TITLE.into(), about, table, notes: vec![note] })
}

impl Examples {
    fn spans(&self) -> impl Iterator<Item = &Span> {
        self.examples.iter().flat_map(|example| &example.spans)
    }

    /// Whether both have the same texts with the same holes.
    fn asks_like(&self, other: &Examples) -> bool {
        self.examples.len() == other.examples.len()
            && self.examples.iter().zip(&other.examples).all(|(own, other)| own.input == other.input)
            && self.spans().map(|span| &span.expected).eq(other.spans().map(|span| &span.expected))
    }
}

/// The hole among the words around it.
fn around(example: &Example, span: &Span) -> String {
    let (before, after) = example.input.split_once(&span.sentinel).unwrap_or(("", &example.input));
    let mark = |text: String, span: &Span| text.replace(&span.sentinel, &format!("{}…", gap(span)));
    let clean = |text: &str| {
        let shown = example.spans.iter().fold(text.to_owned(), mark);
        shown.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (before, after_words) = (clean(before), clean(after));
    let before = before[before.len().saturating_sub(BEFORE)..].join(" ");
    let right = if after.starts_with(' ') { " " } else { "" };
    let after = after_words[..after_words.len().min(AFTER)].join(" ");
    format!("{before}{}{HOLE}{right}{after}", gap(span)).trim_start().to_owned()
}

/// What stands before a hole: nothing within a word.
fn gap(span: &Span) -> &'static str {
    if span.expected.starts_with(' ') { " " } else { "" }
}

/// What fills a hole, without line breaks.
fn cell(filled: Option<&str>) -> String {
    let Some(filled) = filled else { return "-".to_owned() };
    let words: Vec<&str> = filled.split_whitespace().collect();
    if words.is_empty() { "(nothing)".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(filled: [Option<&str>; 2]) -> Examples {
        let span = |sentinel: &str, expected: &str, filled: Option<&str>| Span {
            sentinel: sentinel.into(),
            expected: expected.into(),
            filled: filled.map(str::to_owned),
        };
        let input = "One that lives on the<extra_id_0> of a river, or swim<extra_id_1> in it.".into();
        let [first, second] = filled;
        let spans = vec![span("<extra_id_0>", " bank", first), span("<extra_id_1>", "s", second)];
        Examples { examples: vec![Example { input, spans }] }
    }

    #[test]
    fn holes_stand_in_their_words() {
        let (one, other) = (examples([Some(" bank"), Some("ming")]), examples([Some(" "), None]));
        let section = section(&[("one", &one), ("other", &other)]).expect("a section");
        let rows = [
            ["One that lives on the ___ of a river, or", "bank", "bank", "(nothing)"],
            ["… of a river, or swim___ in it.", "s", "ming", "-"],
        ];
        assert_eq!(section.table.rows, rows.map(|row| row.map(str::to_owned).to_vec()));
        assert_eq!(section.notes.len(), 1);
        assert!(section.notes[0].ends_with("of 2: one 1, other 0."), "{}", section.notes[0]);
    }

    #[test]
    fn models_with_other_questions_are_left_out() {
        let one = examples([None, None]);
        let mut other = examples([None, None]);
        other.examples[0].spans[1].expected = "mer".into();
        let section = section(&[("one", &one), ("other", &other)]).expect("a section");
        assert_eq!(section.table.header.len(), 3);
        assert!(super::section(&[("none", &Examples::default())]).is_none());
    }
}
