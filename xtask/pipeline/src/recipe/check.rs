//! Checks a recipe against its schema: every unknown key and every value of the wrong type is reported, in
//! plain words and with its place. Values are put into the form in which they are read.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::Result;
use serde_json::{Map, Value as Json};
use toml::Spanned;
use toml::de::DeValue;

use super::schema::{self, Tagged, keys, spelt_alike, tag_of};
use crate::located::{Table, Texts, Value};
use crate::problems::Problems;

/// What is wrong with a recipe.
pub struct Check<'a> {
    texts: &'a Texts,
    problems: Problems,
    /// Tables that stages share are checked with each of them.
    said: BTreeSet<String>,
}

impl<'a> Check<'a> {
    pub fn new(texts: &'a Texts) -> Self {
        Check { texts, problems: Problems::default(), said: BTreeSet::new() }
    }

    pub fn result(self) -> Result<()> {
        self.problems.result()
    }

    pub fn say(&mut self, span: Range<usize>, message: impl std::fmt::Display) {
        let error = self.texts.error(span, message);
        if self.said.insert(error.to_string()) {
            self.problems.add(error);
        }
    }

    /// Whether a place is an override from the command line.
    pub fn is_override(&self, span: &Range<usize>) -> bool {
        self.texts.is_override(span)
    }

    /// Checks a table, whose keys are called `prefix` and their names.
    pub fn table(&mut self, table: &mut Table, schema: &Json, prefix: &str) {
        let properties = schema["properties"].as_object();
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        for (key, value) in table.iter_mut() {
            let (name, span) = (key.get_ref().as_ref(), key.span());
            let own = properties.and_then(|properties| properties.get(name)).or(others);
            match own {
                Some(schema) => self.value(value, schema, &format!("{prefix}{name}")),
                None => self.say(span, unknown(name, prefix, schema)),
            }
        }
    }

    /// Whether a table has all keys that it needs.
    pub fn complete(&mut self, table: &Table, schema: &Json, span: Range<usize>, name: &str) {
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
        let missing: Vec<String> =
            required.filter(|key| !table.contains_key(*key)).map(|key| format!("`{key}`")).collect();
        if !missing.is_empty() {
            self.say(span, format!("{name} has no {}", missing.join(", no ")));
        }
    }

    fn value(&mut self, value: &mut Value, schema: &Json, name: &str) {
        let Some(schema) = schema.as_object() else { return };
        expand(value, schema);
        let span = value.span();
        let Some(fitting) = fitting(value.get_ref(), schema) else {
            let mut message =
                format!("`{name}` must be {}, not {}", expected(schema), found(value.get_ref()));
            let names = Tagged::of(schema).map_or_else(|| constants(schema), |tagged| tagged.names());
            if let Some(near) = value.get_ref().as_str().and_then(|text| nearest(text, names)) {
                message += &format!("; did you mean {near:?}?");
            }
            return self.say(span, message);
        };
        match value.get_mut() {
            DeValue::Table(table) => {
                let tagged = Tagged::of(schema);
                let branch =
                    tagged.as_ref().map_or(Ok(fitting), |tagged| chosen(tagged, table, schema, &span));
                match branch {
                    Ok(branch) => {
                        let branch = &Json::Object(branch.clone());
                        self.table(table, branch, &format!("{name}."));
                        self.complete(table, branch, span, &format!("`{name}`"));
                    }
                    Err(message) => self.say(span, format!("`{name}` {message}")),
                }
            }
            DeValue::Array(items) => {
                let item = fitting.get("items").cloned().unwrap_or_default();
                items.iter_mut().for_each(|value| self.value(value, &item, name));
            }
            DeValue::String(text) => {
                let names = constants(schema);
                if let Some(constant) = names.iter().find(|constant| spelt_alike(constant, text)) {
                    *text = constant.to_string().into();
                }
            }
            _ => {}
        }
    }
}

/// Puts the short form of a table with a tag into its long form.
pub fn expand(value: &mut Value, schema: &Map<String, Json>) {
    let DeValue::String(name) = value.get_ref() else { return };
    let Some(tagged) = Tagged::of(schema) else { return };
    let Some((tag, name)) = tagged.branch(name).and_then(tag_of) else { return };
    let span = value.span();
    let name = Spanned::new(span.clone(), DeValue::String(name.to_owned().into()));
    let key = Spanned::new(span.clone(), tag.to_owned().into());
    *value = Spanned::new(span, DeValue::Table(Table::from_iter([(key, name)])));
}

/// The schema for a table with a tag, which is that of the default if the table has none.
fn chosen<'a>(
    tagged: &Tagged<'a>,
    table: &mut Table,
    schema: &'a Map<String, Json>,
    span: &Range<usize>,
) -> Result<&'a Map<String, Json>, String> {
    let tag = tagged.tag;
    let default = schema.get("default").and_then(|default| default[tag].as_str());
    if let (None, Some(default)) = (table.get(tag), default) {
        let value = Spanned::new(span.clone(), DeValue::String(default.to_owned().into()));
        table.insert(Spanned::new(span.clone(), tag.to_owned().into()), value);
    }
    let one_of = || format!("one of {}", quoted(&tagged.names()));
    let Some(value) = table.get_mut(tag) else { return Err(format!("has no `{tag}`, {}", one_of())) };
    let branch = value.get_ref().as_str().and_then(|name| tagged.branch(name));
    match branch.and_then(|branch| Some((branch.as_object()?, tag_of(branch)?.1))) {
        Some((branch, name)) => {
            *value.get_mut() = DeValue::String(name.to_owned().into());
            Ok(branch)
        }
        None => Err(format!("has the {tag} {}, which is not {}", shown(value.get_ref()), one_of())),
    }
}

/// The part of a schema that a value of this type can fit.
fn fitting<'a>(value: &DeValue<'_>, schema: &'a Map<String, Json>) -> Option<&'a Map<String, Json>> {
    if let Some(alternatives) = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(*key)?.as_array()) {
        return alternatives.iter().filter_map(Json::as_object).find_map(|part| fitting(value, part));
    }
    let is_of = |name: &str| match schema.get("type") {
        Some(Json::String(own)) => own == name,
        Some(Json::Array(own)) => own.iter().any(|own| own == name),
        _ => name == "string" && schema.contains_key("const"),
    };
    let least = |key| schema.get(key).and_then(Json::as_f64);
    let in_range = |number: f64| {
        least("minimum").is_none_or(|least| number >= least)
            && least("maximum").is_none_or(|most| number <= most)
    };
    let fits = match value {
        DeValue::String(text) => {
            let names = constants(schema);
            is_of("string") && (names.is_empty() || names.iter().any(|name| spelt_alike(name, text)))
        }
        DeValue::Integer(_) => {
            (is_of("integer") && integer(value).is_some_and(|number| in_range(number as f64)))
                || is_of("number")
        }
        DeValue::Float(_) => is_of("number"),
        DeValue::Boolean(_) => is_of("boolean"),
        DeValue::Array(_) => is_of("array"),
        DeValue::Table(_) => is_of("object"),
        DeValue::Datetime(_) => false,
    };
    fits.then_some(schema)
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let DeValue::Integer(number) = value else { return None };
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The strings that a schema lists, if it lists all that are allowed.
fn constants(schema: &Map<String, Json>) -> Vec<&str> {
    if let Some(name) = schema.get("const").and_then(Json::as_str) {
        return vec![name];
    }
    if let Some(names) = schema.get("enum").and_then(Json::as_array) {
        return names.iter().filter_map(Json::as_str).collect();
    }
    let alternatives = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(*key)?.as_array());
    alternatives.into_iter().flatten().filter_map(Json::as_object).flat_map(constants).collect()
}

/// What a schema allows, in words that complete "must be".
pub fn expected(schema: &Map<String, Json>) -> String {
    if let Some(tagged) = Tagged::of(schema) {
        let (tag, names) = (tagged.tag, tagged.names());
        let first = names.first().copied().unwrap_or_default();
        return format!("one of {}, or a table such as {{ {tag} = {first:?} }}", quoted(&names));
    }
    let names = constants(schema);
    if !names.is_empty() {
        return match names.as_slice() {
            [only] => format!("{only:?}"),
            _ => format!("one of {}", quoted(&names)),
        };
    }
    if let Some(alternatives) = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(*key)?.as_array()) {
        let all: Vec<String> = alternatives.iter().filter_map(Json::as_object).map(expected).collect();
        return match all.split_last() {
            Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
            _ => all.concat(),
        };
    }
    let bound = |key: &str| schema.get(key).and_then(Json::as_u64);
    match schema.get("type").and_then(Json::as_str) {
        Some("integer") => match (bound("minimum"), bound("maximum")) {
            (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
            (Some(least), None) if least > 0 => format!("a whole number of at least {least}"),
            _ => "a whole number".to_owned(),
        },
        Some("number") => "a number".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("array") => {
            let item = schema.get("items").and_then(Json::as_object).map_or(String::new(), expected);
            let several = item.contains(" or ") && !item.starts_with("one of ");
            match item.strip_prefix("one of ").or_else(|| item.strip_prefix("a ")) {
                _ if several => "a list".to_owned(),
                Some(rest) if item.starts_with("one of ") => format!("a list of {rest}"),
                Some(one) => format!("a list of {one}s"),
                None => "a list".to_owned(),
            }
        }
        Some("object") => "a table".to_owned(),
        _ => "a string".to_owned(),
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// A value, in words that complete "not".
pub fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Boolean(_) => shown(value),
        DeValue::String(_) => format!("the string {}", shown(value)),
        DeValue::Integer(_) | DeValue::Float(_) => shown(value),
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(whether) => whether.to_string(),
        other => format!("a {}", other.type_str()),
    }
}

fn unknown(name: &str, prefix: &str, schema: &Json) -> String {
    let mut message = format!("unknown key `{prefix}{name}`");
    let known = keys(schema);
    let elsewhere: Vec<String> = schema::tables()
        .filter(|table| schema::table(table).is_some_and(|table| keys(table).contains(&name)))
        .map(|table| format!("`[{table}]`"))
        .collect();
    message += &match nearest(name, known.iter().copied()) {
        _ if !elsewhere.is_empty() => format!("; `{name}` is a key of {}", elsewhere.join(" and ")),
        Some(near) => format!("; did you mean `{near}`?"),
        None => {
            let known: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
            format!("; there are {}", known.join(", "))
        }
    };
    message
}

/// The name that was probably meant, if one is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let near = |known: &'a str| (strsim::jaro_winkler(&plain(name), &plain(known)), known);
    let scored = known.into_iter().map(near).filter(|(score, _)| *score > 0.85);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
