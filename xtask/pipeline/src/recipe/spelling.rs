//! Other ways to write the same: short forms, and keys as earlier versions called them. Each file is put into
//! one form before it is merged with others, so that an override finds what it overrides.

use serde_json::Value as Json;
use t5_model::train::RENAMED;
use toml::Spanned;
use toml::de::DeValue;

use super::check::expand;
use super::schema;
use crate::located::{Table, Value};
use crate::stage::KINDS;

/// Puts one file's tables of settings into the present form.
pub fn normalise(recipe: &mut Table) {
    let is_settings = |name: &str| KINDS.iter().any(|kind| kind.table == Some(name));
    for (name, value) in recipe.iter_mut() {
        let DeValue::Table(table) = value.get_mut() else { continue };
        match name.get_ref().as_ref() {
            "stages" => {
                let stages = table.iter_mut().filter_map(|(_, stage)| match stage.get_mut() {
                    DeValue::Table(stage) => Some(stage),
                    _ => None,
                });
                stages.for_each(settings);
            }
            name if is_settings(name) => settings(table),
            _ => {}
        }
    }
}

fn settings(table: &mut Table) {
    rename(table);
    for (key, value) in table.iter_mut() {
        spell_out(key.get_ref(), value);
        // Which kind of stage it is may be written in another file.
        for kind in KINDS {
            let own = schema::stage(kind)["properties"].get(key.get_ref().as_ref());
            if let Some(own) = own.and_then(Json::as_object) {
                expand(value, own);
            }
        }
    }
}

/// Short names of values, as the command line has them too: the key, the short name, and the full one.
pub(super) const SHORT: [(&str, &str, &str); 1] = [("schedule", "wsd", "warmup_stable_decay")];

/// Writes out a short name of a value, or of the kind of a table.
fn spell_out(key: &str, value: &mut Value) {
    match value.get_mut() {
        DeValue::String(text) => {
            let short = SHORT.iter().find(|(of, short, _)| *of == key && schema::spelt_alike(short, text));
            if let Some((_, _, full)) = short {
                *text = (*full).into();
            }
        }
        DeValue::Table(table) => {
            if let Some(kind) = table.get_mut("kind").filter(|kind| kind.get_ref().is_str()) {
                spell_out(key, kind);
            }
        }
        _ => {}
    }
}

/// Takes settings out of the table `schedule`, which used to hold them.
fn rename(table: &mut Table) {
    let Some((key, value)) = table.remove_entry("schedule") else { return };
    let (span, mut value) = (value.span(), value);
    let DeValue::Table(schedule) = value.get_mut() else {
        table.insert(key, value);
        return;
    };
    let is_present_form = schedule.contains_key("kind");
    let mut kept = Table::new();
    for (own, value) in std::mem::take(schedule) {
        let path = format!("schedule.{}", own.get_ref());
        match (RENAMED.iter().find(|(earlier, _)| *earlier == path), value) {
            (Some((_, present)), value) if !is_present_form && !table.contains_key(*present) => {
                table.insert(Spanned::new(own.span(), (*present).to_owned().into()), value);
            }
            (None, value) if path == "schedule.decay" && !is_present_form => {
                kept.extend(decay(own.span(), value));
            }
            (_, value) => drop(kept.insert(own, value)),
        }
    }
    if !kept.is_empty() {
        table.insert(key, Spanned::new(span, DeValue::Table(kept)));
    }
}

type Entry = (Spanned<std::borrow::Cow<'static, str>>, Value);

/// The keys of what used to be `schedule.decay`, as those of `schedule`.
fn decay(span: std::ops::Range<usize>, value: Value) -> Vec<Entry> {
    match value.into_inner() {
        DeValue::Table(decay) => {
            let present = |(key, value): Entry| {
                let path = format!("schedule.decay.{}", key.get_ref());
                let renamed = RENAMED.iter().find(|(earlier, _)| *earlier == path);
                let name = renamed.and_then(|(_, present)| present.strip_prefix("schedule."));
                match name {
                    Some(name) => (Spanned::new(key.span(), name.to_owned().into()), value),
                    None => (key, value),
                }
            };
            decay.into_iter().map(present).collect()
        }
        other => {
            let key = Spanned::new(span.clone(), "kind".into());
            vec![(key, Spanned::new(span, other))]
        }
    }
}
