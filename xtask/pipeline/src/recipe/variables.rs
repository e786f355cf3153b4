//! `[variables]`: values that a recipe says once and uses as `"${name}"`, as OmegaConf writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::Result;
use toml::Spanned;
use toml::de::DeValue;

use super::check::{Check, found, nearest};
use super::schema;
use crate::located::{Table, Texts, Value};

/// The table that holds them.
pub const TABLE: &str = "variables";

/// How many variables may wait for each other.
const DEEPEST: usize = 64;

/// The most characters and items that a variable may come to: one that uses another twice is twice as long.
const MOST: usize = 1 << 16;

/// The variables that a text uses, whether another text overrides that or not.
pub fn used(table: &Table, names: &mut BTreeSet<String>) {
    table.iter().for_each(|(_, value)| used_in(value, names));
}

fn used_in(value: &Value, names: &mut BTreeSet<String>) {
    match value.get_ref() {
        DeValue::String(text) => {
            let pieces = pieces(text).unwrap_or_default();
            names.extend(pieces.into_iter().filter_map(|piece| match piece {
                Piece::Variable(name) => Some(name.to_owned()),
                Piece::Text(_) => None,
            }));
        }
        DeValue::Array(items) => items.iter().for_each(|item| used_in(item, names)),
        DeValue::Table(table) => used(table, names),
        _ => {}
    }
}

/// Takes the variables out of a merged recipe and puts their values where they are used. `used` are those that any
/// of its texts uses.
pub fn resolve(recipe: &mut Table, used: &BTreeSet<String>, texts: &Texts) -> Result<()> {
    let mut table = texts.take_table(recipe, TABLE)?;
    let mut check = Check::new(texts);
    if let Some(schema) = schema::table(TABLE) {
        check.table(&mut table, schema, &format!("{TABLE}."));
    }
    let mut variables = Variables { check, unresolved: BTreeMap::new(), resolved: BTreeMap::new() };
    for (key, value) in table {
        let name = key.get_ref().to_string();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
            let message = format!("variable {name:?}: a name has letters, digits, '-' and '_' only");
            variables.check.say(key.span(), message);
        } else if !used.contains(&name) {
            // Who mistypes a name in an override means another.
            let near = nearest(&name, used.iter().map(String::as_str));
            let message = match near {
                Some(near) => format!("no key uses the variable `{name}`; did you mean `{near}`?"),
                None => format!("no key uses the variable `{name}`: nothing says \"${{{name}}}\""),
            };
            variables.check.say(key.span(), message);
        }
        variables.unresolved.insert(name, (key.span(), value));
    }
    let names: Vec<String> = variables.unresolved.keys().cloned().collect();
    for name in &names {
        variables.value(name, &mut Vec::new());
    }
    variables.substitute_in(recipe, "", &mut Vec::new());
    variables.check.result()
}

/// A part of a string.
enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// The parts of a string, or what is wrong with it. `$${` stands for `${`.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, &'static str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            pieces.extend([Piece::Text(literal), Piece::Text("${")]);
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').ok_or("has a `${` without a `}`")?;
        pieces.extend(Some(Piece::Text(before)).filter(|_| !before.is_empty()));
        pieces.push(Piece::Variable(name.trim()));
        rest = after;
    }
    pieces.extend(Some(Piece::Text(rest)).filter(|_| !rest.is_empty()));
    Ok(pieces)
}

struct Variables<'a> {
    check: Check<'a>,
    /// With the places of their names.
    unresolved: BTreeMap<String, (Range<usize>, Value)>,
    /// `None` for those in which something is wrong.
    resolved: BTreeMap<String, Option<Value>>,
}

impl Variables<'_> {
    /// A variable's value, in which no other is left. `open` are those that wait for it.
    fn value(&mut self, name: &str, open: &mut Vec<String>) -> Option<Value> {
        if let Some(known) = self.resolved.get(name) {
            return known.clone();
        }
        let (span, mut value) = self.unresolved.get(name).cloned()?;
        if let Some(start) = open.iter().position(|waiting| waiting == name) {
            let circle: Vec<&str> = open[start..].iter().map(String::as_str).chain([name]).collect();
            self.check.say(span, format!("variables use each other: {}", circle.join(" -> ")));
            return None;
        }
        if open.len() >= DEEPEST {
            self.check.say(span, format!("variables use each other more than {DEEPEST} deep"));
            return None;
        }
        open.push(name.to_owned());
        let sound = self.substitute(&mut value, &format!("{TABLE}.{name}"), open);
        open.pop();
        let sound = sound && {
            let fits = size(&value) <= MOST;
            if !fits {
                self.check.say(span, format!("the variable `{name}` comes to more than {MOST} characters"));
            }
            fits
        };
        let value = Some(value).filter(|_| sound);
        self.resolved.insert(name.to_owned(), value.clone());
        value
    }

    fn substitute_in(&mut self, table: &mut Table, prefix: &str, open: &mut Vec<String>) -> bool {
        let mut sound = true;
        for (key, value) in table.iter_mut() {
            sound &= self.substitute(value, &format!("{prefix}{}", key.get_ref()), open);
        }
        sound
    }

    /// Puts variables' values into one, which stands at `key`. Whether all of them are known.
    fn substitute(&mut self, value: &mut Value, key: &str, open: &mut Vec<String>) -> bool {
        match value.get_mut() {
            DeValue::String(text) => match text.contains("${") {
                true => {
                    let (text, span) = (text.to_string(), value.span());
                    let put = self.put(&text, span, key, open);
                    put.is_some_and(|put| {
                        *value = put;
                        true
                    })
                }
                false => true,
            },
            DeValue::Array(items) => {
                let mut sound = true;
                for item in items.iter_mut() {
                    sound &= self.substitute(item, key, open);
                }
                sound
            }
            DeValue::Table(table) => self.substitute_in(table, &format!("{key}."), open),
            _ => true,
        }
    }

    /// What a string with variables stands for: the value of one that is all of it, with its type and place, or a
    /// text. A text that begins with a variable is where this is, so that a path is relative to who named its folder.
    fn put(&mut self, text: &str, span: Range<usize>, key: &str, open: &mut Vec<String>) -> Option<Value> {
        let pieces = match pieces(text) {
            Ok(pieces) => pieces,
            Err(problem) => {
                self.check.say(span, format!("`{key}` {problem}"));
                return None;
            }
        };
        let is_whole = matches!(pieces.as_slice(), [Piece::Variable(_)]);
        let (mut whole, mut at) = (String::new(), span.clone());
        for (place, piece) in pieces.into_iter().enumerate() {
            let name = match piece {
                Piece::Text(text) => {
                    whole += text;
                    continue;
                }
                Piece::Variable(name) => name,
            };
            if !self.unresolved.contains_key(name) {
                let message = format!("`{key}` uses the variable `{name}`, {}", self.instead(name));
                self.check.say(span, message);
                return None;
            }
            let value = self.value(name, open)?;
            if is_whole {
                return Some(value);
            }
            match scalar(value.get_ref()) {
                Some(scalar) => whole += &scalar,
                None => {
                    let kind = found(value.get_ref());
                    let message =
                        format!("`{key}` has the variable `{name}` in a text, but its value is {kind}");
                    self.check.say(span, message);
                    return None;
                }
            }
            if place == 0 {
                at = value.span();
            }
            if whole.len() > MOST {
                self.check.say(span, format!("`{key}` comes to more than {MOST} characters"));
                return None;
            }
        }
        Some(Spanned::new(at, DeValue::String(whole.into())))
    }

    /// What there is instead of a variable.
    fn instead(&self, name: &str) -> String {
        let names = || self.unresolved.keys().map(String::as_str);
        match nearest(name, names()) {
            Some(near) => format!("which is not in `[{TABLE}]`; did you mean `{near}`?"),
            None if self.unresolved.is_empty() => format!("but there is no `[{TABLE}]`"),
            None => {
                format!("which is not in `[{TABLE}]`; there are: {}", names().collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A value as part of a text.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(whether) => Some(whether.to_string()),
        DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_) => None,
    }
}

fn size(value: &Value) -> usize {
    match value.get_ref() {
        DeValue::String(text) => text.len(),
        DeValue::Array(items) => items.iter().fold(items.len(), |sum, item| sum.saturating_add(size(item))),
        _ => 1,
    }
}
