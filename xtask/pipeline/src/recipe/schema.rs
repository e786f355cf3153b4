//! The keys of a recipe, and what they mean.
//!
//! `[data]` is the text for all stages, and a kind of stage may have a table of settings for all its stages
//! (`[pretraining]`, `[fine_tuning]`), which a stage's own keys override. `[models.NAME]` are dimensions,
//! `[stages.NAME]` the stages, `[comparison]` is for the report.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Result;
use toml::Spanned;

use super::{Comparison, graph};
use crate::located::{Table, Texts, Value, merge};
use crate::stage::{Gives, KINDS, Keys, Kind, Shared, Stage};

/// A stage, with the locations of its definition and of its inputs' names.
pub struct Located {
    pub stage: Stage,
    pub span: Range<usize>,
    pub inputs: Vec<(Spanned<String>, Gives)>,
}

/// Checks a merged recipe and puts its stages in order.
pub fn resolve(mut table: Table, texts: &Texts) -> Result<(Vec<Stage>, Option<Comparison>)> {
    let stages = texts.take_table(&mut table, "stages")?;
    let data = table.remove("data");
    let mut settings = Vec::new();
    for name in KINDS.iter().filter_map(|kind| kind.table) {
        settings.push((name, texts.take_table(&mut table, name)?));
    }
    let models = texts.take(&mut table, "models")?.unwrap_or_default();
    let comparison: Option<Spanned<Comparison>> = texts.take(&mut table, "comparison")?;
    if let Some((key, _)) = table.iter().next() {
        let names = ["data", "models"].into_iter().chain(settings.iter().map(|(name, _)| *name));
        let names: Vec<String> =
            names.chain(["stages", "comparison"]).map(|name| format!("`{name}`")).collect();
        let message = format!("unknown table `{}`, expected one of {}", key.get_ref(), names.join(", "));
        return Err(texts.error(key.span(), message));
    }
    let names = stages.keys().map(|name| name.get_ref().to_string()).collect();
    let shared = Shared { texts, data, models, stages: names };
    let settings = settings.into_iter().collect();
    let located = stages.into_iter().map(|(name, value)| stage(&shared, &settings, &name, value));
    let stages = graph::in_order(located.collect::<Result<_>>()?, comparison.as_ref(), texts)?;
    Ok((stages, comparison.map(Spanned::into_inner)))
}

/// Reads a stage. `settings` are the tables for kinds of stages.
fn stage(
    shared: &Shared<'_>,
    settings: &BTreeMap<&str, Table>,
    name: &Spanned<Cow<'static, str>>,
    value: Value,
) -> Result<Located> {
    let (texts, span, name) = (shared.texts, name.span(), name.get_ref().to_string());
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.starts_with('.') || !name.chars().all(usual) {
        let message = format!("stage {name:?} names a directory: letters, digits, '-', '_' and '.' only");
        return Err(texts.error(span, message));
    }
    let mut own = texts.table(value, &format!("stages.{name}"))?;
    let Some(kind) = own.remove("kind") else {
        return Err(texts.error(span, format!("stage {name:?} has no `kind`")));
    };
    let Some(found) = kind.get_ref().as_str().and_then(Kind::named) else {
        let names: Vec<String> = KINDS.iter().map(|kind| format!("{:?}", kind.name)).collect();
        return Err(texts.error(kind.span(), format!("`kind` is one of {}", names.join(", "))));
    };
    let mut table = found.table.and_then(|table| settings.get(table).cloned()).unwrap_or_default();
    merge(&mut table, own);
    let mut keys = Keys::new(shared, span.clone(), table);
    let work = (found.read)(&mut keys)?;
    Ok(Located { stage: Stage { name, kind: found, work }, span, inputs: keys.into_inputs() })
}
