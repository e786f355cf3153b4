//! From the tables of a recipe to its stages.
//!
//! `[data]` is the text for all stages, `[compute]` what they compute on, and a kind of stage may have a
//! table of settings for all its stages (`[pretraining]`, `[fine_tuning]`), which a stage's own keys override.
//! `[models.NAME]` are dimensions, `[stages.NAME]` the stages, `[comparison]` is for the report; `seeds` says how
//! often stages are run that depend on one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Result;
use t5_model::ComputeChoice;
use toml::Spanned;
use toml::de::DeValue;

use super::check::{Check, found, nearest};
use super::{Comparison, graph, schema, seeds};
use crate::located::{Table, Texts, Value, merge};
use crate::problems::Problems;
use crate::stage::{Gives, KINDS, Keys, Kind, Set, Shared, Stage};

/// A stage, with the locations of its definition and of its inputs' names.
pub struct Located {
    pub stage: Stage,
    pub span: Range<usize>,
    pub inputs: Vec<(Spanned<String>, Gives)>,
    /// Stages that it does not take anything from, but whose forecasts must be known before its own.
    pub references: Vec<Spanned<String>>,
}

/// The tables of a stage and of what is named in it.
#[derive(Clone)]
pub struct Unread {
    name: Spanned<Cow<'static, str>>,
    kind: &'static Kind,
    span: Range<usize>,
    keys: Table,
}

impl Unread {
    pub fn name(&self) -> &str {
        self.name.get_ref()
    }
}

/// Checks a merged recipe and puts its stages in order.
pub fn resolve(mut table: Table, texts: &Texts) -> Result<(Vec<Stage>, Option<Comparison>)> {
    let mut check = Check::new(texts);
    check_tables(&mut table, &mut check);
    let stages = texts.take_table(&mut table, "stages").unwrap_or_default();
    let mut settings = BTreeMap::new();
    for name in KINDS.iter().filter_map(|kind| kind.table) {
        settings.insert(name, texts.take_table(&mut table, name).unwrap_or_default());
    }
    let names: Vec<String> = stages.keys().map(|name| name.get_ref().to_string()).collect();
    let mut unread = Vec::new();
    for (name, value) in stages {
        unread.extend(check_stage(name, value, &names, &settings, &mut check));
    }
    check.result()?;

    let models = texts.take(&mut table, "models")?.unwrap_or_default();
    let comparison: Option<Spanned<Comparison>> = texts.take(&mut table, "comparison")?;
    let compute = texts.take(&mut table, "compute")?.unwrap_or_default();
    let seeds: Option<u64> = texts.take(&mut table, "seeds")?;
    let shared = Shared { texts, data: table.remove("data"), models, compute, stages: names };
    let mut problems = Problems::default();
    let each = unread.iter().cloned();
    let mut located = each.filter_map(|stage| problems.keep(read(&shared, stage, None))).collect();
    problems.result()?;
    if let Some(sets @ 2..) = seeds {
        located = seeds::fan_out(&shared, &unread, located, sets)?;
    }
    let stages = graph::in_order(located, comparison.as_ref(), texts)?;
    Ok((stages, comparison.map(Spanned::into_inner)))
}

/// Checks every table but the stages, which come with their kinds' tables.
fn check_tables(recipe: &mut Table, check: &mut Check<'_>) {
    let known = schema::top();
    let mut others = Table::new();
    for (name, value) in recipe.iter_mut() {
        let (key, span) = (name.get_ref().to_string(), value.span());
        let is_shared = KINDS.iter().any(|kind| kind.table == Some(&key));
        match (schema::table(&key).filter(|_| key != "seeds"), value.get_mut()) {
            (Some(schema), DeValue::Table(table)) => match key.as_str() {
                "stages" => {}
                // A stage may complete what is open here.
                _ if is_shared => check.table(&mut table.clone(), schema, ""),
                "models" => models(table, check),
                _ => {
                    check.table(table, schema, "");
                    check.complete(table, schema, span, &format!("`[{key}]`"));
                }
            },
            (Some(_), other) => check.say(span, format!("`{key}` must be a table, not {}", found(other))),
            (None, _) => drop(others.insert(name.clone(), value.clone())),
        }
    }
    check.table(&mut others, known, "");
}

fn models(models: &mut Table, check: &mut Check<'_>) {
    let Some(schema) = schema::table("models").map(|models| &models["additionalProperties"]) else { return };
    let names: Vec<String> = models.keys().map(|name| name.get_ref().to_string()).collect();
    for (name, value) in models.iter_mut() {
        let (name, at, span) = (name.get_ref().to_string(), name.span(), value.span());
        let DeValue::Table(model) = value.get_mut() else {
            check.say(span, format!("`models.{name}` must be a table, not {}", found(value.get_ref())));
            continue;
        };
        let is_new = check.is_override(&at)
            && schema["required"].as_array().is_some_and(|required| {
                required.iter().filter_map(|key| key.as_str()).any(|key| !model.contains_key(key))
            });
        if is_new {
            check.say(at, format!("there is no model {name:?}{}", instead(&name, &names)));
            continue;
        }
        check.table(model, schema, "");
        check.complete(model, schema, span, &format!("`[models.{name}]`"));
    }
}

/// Checks a stage together with what it takes from its kind's table.
fn check_stage(
    name: Spanned<Cow<'static, str>>,
    value: Value,
    names: &[String],
    settings: &BTreeMap<&str, Table>,
    check: &mut Check<'_>,
) -> Option<Unread> {
    let (own_name, span) = (name.get_ref().to_string(), name.span());
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if own_name.starts_with('.') || own_name.is_empty() || !own_name.chars().all(usual) {
        let message = format!("stage {own_name:?} names a directory: letters, digits, '-', '_' and '.' only");
        check.say(span, message);
        return None;
    }
    let kinds = || KINDS.iter().map(|kind| format!("{:?}", kind.name)).collect::<Vec<_>>().join(", ");
    let mut own = match value.into_inner() {
        DeValue::Table(own) => own,
        other => {
            check.say(span, format!("`stages.{own_name}` must be a table, not {}", found(&other)));
            return None;
        }
    };
    let Some(kind) = own.remove("kind") else {
        let message = match check.is_override(&span) {
            true => format!("there is no stage {own_name:?}{}", instead(&own_name, names)),
            false => {
                match nearest(&own_name, names.iter().map(String::as_str).filter(|name| *name != own_name)) {
                    Some(near) => format!(
                        "stage {own_name:?} has no `kind`, and no included recipe defines it; did you mean {near:?}?"
                    ),
                    None => format!("stage {own_name:?} has no `kind`, which is one of {}", kinds()),
                }
            }
        };
        check.say(span, message);
        return None;
    };
    let Some(found) = kind.get_ref().as_str().and_then(Kind::named) else {
        check.say(kind.span(), format!("`kind` is one of {}", kinds()));
        return None;
    };
    let mut keys = found.table.and_then(|table| settings.get(table).cloned()).unwrap_or_default();
    merge(&mut keys, own);
    check.table(&mut keys, schema::stage(found), "");
    Some(Unread { name, kind: found, span, keys })
}

/// The name that was probably meant, or else all there are.
fn instead(name: &str, names: &[String]) -> String {
    let others: Vec<&str> = names.iter().map(String::as_str).filter(|other| *other != name).collect();
    match nearest(name, others.iter().copied()) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => format!("; there are: {}", others.join(", ")),
    }
}

/// Reads a stage's keys, in which a name is that of the stage in the same set of seeds.
pub fn read(shared: &Shared<'_>, stage: Unread, set: Option<&Set<'_>>) -> Result<Located> {
    let Unread { name, kind, span, keys } = stage;
    let mut keys = Keys::new(shared, span.clone(), keys, set);
    let compute = match kind.computes {
        true => keys.own()?,
        false => Default::default(),
    };
    let compute = ComputeChoice::or(compute, &shared.compute);
    let published = keys.take("published")?;
    let work = (kind.read)(&mut keys)?;
    let name = name.into_inner().into_owned();
    let stage = Stage { name, kind, work, compute, seed_set: None, published };
    let (inputs, references) = keys.into_stages();
    Ok(Located { stage, span, inputs, references })
}
