//! The reference of a recipe's keys, written from the schema.

use serde_json::{Map, Value};
use t5_model::ComputeChoice;

use super::check::expected;
use super::schema::{self, Tagged, tag_of};
use super::variables;
use crate::stage::{KINDS, Kind};

/// A table of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// How the table is written: `[data]`, or `[stages.NAME]` with its kind.
    pub heading: String,
    /// What the table is for.
    pub about: String,
    /// In the order in which they are described.
    pub keys: Vec<Key>,
}

/// A key of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Dotted if it is in a table of its own: `schedule.kind`.
    pub name: String,
    /// What it may be, in words.
    pub kind: String,
    /// As TOML, or what it follows from; empty if there is none.
    pub default: String,
    /// What it means.
    pub about: String,
}

/// All tables of a recipe with their keys.
pub fn sections() -> Vec<Section> {
    let mut sections = vec![Section {
        heading: "At the top".into(),
        about: "Before the first table.".into(),
        keys: schema::AT_THE_TOP.map(|name| key(name, &schema::top()["properties"][name])).into(),
    }];
    for name in schema::tables() {
        let Some(table) = schema::table(name) else { continue };
        let about = text(table).join(" ");
        match name {
            "stages" => sections.extend(KINDS.iter().map(|kind| stage(kind))),
            "models" => sections.push(Section {
                heading: "`[models.NAME]`".into(),
                about,
                keys: keys(&table["additionalProperties"], ""),
            }),
            variables::TABLE => sections.push(Section {
                heading: format!("`[{name}]`"),
                about,
                keys: vec![key("NAME", &table["additionalProperties"])],
            }),
            name if KINDS.iter().any(|kind| kind.table == Some(name)) => {}
            name => sections.push(Section { heading: format!("`[{name}]`"), about, keys: keys(table, "") }),
        }
    }
    sections
}

fn stage(kind: &Kind) -> Section {
    let mut about = kind.about.to_owned();
    if let Some(table) = kind.table {
        about += &format!(" `[{table}]` has keys for all such stages.");
    }
    let mut keys = keys(schema::stage(kind), "");
    if kind.computes {
        about += " Such a stage also has the keys of `[compute]`.";
        let shared = schema::keys_of::<ComputeChoice>();
        keys.retain(|key| !shared.contains(&key.name));
    }
    Section { heading: format!("`[stages.NAME]`, `kind = {:?}`", kind.name), about, keys }
}

impl Section {
    /// The section as Markdown.
    pub fn markdown(&self) -> String {
        let mut markdown = format!(
            "### {}\n\n{}\n\n| key | type | default | meaning |\n|---|---|---|---|\n",
            self.heading, self.about
        );
        for Key { name, kind, default, about } in &self.keys {
            let cells = [format!("`{name}`"), kind.clone(), default.clone(), about.clone()];
            markdown += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
        markdown
    }
}

fn keys(table: &Value, prefix: &str) -> Vec<Key> {
    let required: Vec<&str> =
        table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut all = Vec::new();
    for (name, schema) in table["properties"].as_object().into_iter().flatten() {
        if name == "kind" && prefix.is_empty() {
            continue; // the section's heading says it
        }
        let mut own = key(&format!("{prefix}{name}"), schema);
        if required.contains(&name.as_str()) && own.default.is_empty() {
            own.default = "required".into();
        }
        all.push(own);
        let Some(tagged) = schema.as_object().and_then(Tagged::of) else { continue };
        for branch in tagged.branches {
            let Some((tag, value)) = tag_of(branch) else { continue };
            let inner = keys(branch, &format!("{prefix}{name}.")).into_iter();
            let inner = inner.filter(|inner| inner.name != format!("{prefix}{name}.{tag}"));
            for mut inner in inner {
                match all.iter_mut().find(|known| known.name == inner.name && known.about == inner.about) {
                    // The same key of another branch.
                    Some(known) if known.default == inner.default => {
                        known.kind = known.kind.replacen(" (with", &format!(" (with `{value}`,"), 1);
                    }
                    _ => {
                        inner.kind += &format!(" (with `{value}`)");
                        all.push(inner);
                    }
                }
            }
        }
    }
    all
}

fn key(name: &str, schema: &Value) -> Key {
    let mut about = text(schema);
    let mut default = schema.get("default").map(toml).unwrap_or_default();
    // Settings that follow from others say from which.
    for part in &mut about {
        if let Some((before, after)) = part.split_once(" [default: ")
            && let Some((follows, after)) = after.split_once(']')
        {
            default = follows.to_owned();
            *part = format!("{before}{after}");
        }
    }
    if let Some(first) = about.first_mut().filter(|first| !first.ends_with(['.', ':'])) {
        first.push('.');
    }
    let kind = schema.as_object().map(kind).unwrap_or_default();
    Key { name: name.to_owned(), kind, default, about: about.join(" ") }
}

/// What a key may be. The choices of a table are among its keys.
fn kind(schema: &Map<String, Value>) -> String {
    let words = expected(schema);
    let (words, table) = match (words.split_once(", or a table such as"), Tagged::of(schema)) {
        (Some((words, _)), Some(tagged)) => (words, format!(", or a table with that `{}`", tagged.tag)),
        _ => (words.as_str(), String::new()),
    };
    let words = words.strip_prefix("one of ").unwrap_or(words);
    let words = words.strip_prefix("a ").unwrap_or(words);
    words.replace('"', "`") + &table
}

/// The paragraphs of a description, on one line each.
fn text(schema: &Value) -> Vec<String> {
    let description = schema["description"].as_str().unwrap_or_default();
    description
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// A value as a recipe would say it: a table with nothing but defaults by its tag alone.
fn toml(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Object(table) => {
            let tag = table.get("name").or_else(|| table.get("kind")).and_then(Value::as_str);
            tag.map_or_else(|| format!("`{value}`"), |tag| format!("`{tag:?}`"))
        }
        value => format!("`{value}`"),
    }
}
