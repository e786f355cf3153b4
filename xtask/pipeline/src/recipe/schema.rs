//! The JSON schema of recipes, generated from the types that their keys are read into. Editors complete and
//! check recipes by it, recipes are checked against it when they are read, and the reference of keys is
//! written from it.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use t5_model::ComputeChoice;

use super::{Comparison, editors, variables};
use crate::stage::{DataTable, Dimensions, KINDS, Kind, SeedSet};

/// What recipes are checked against once their variables have values.
static SCHEMA: LazyLock<Value> = LazyLock::new(recipe);
/// What editors are told.
static FOR_EDITORS: LazyLock<Value> = LazyLock::new(|| editors::before_reading(SCHEMA.clone()));

/// The keys of a recipe that are not tables.
pub(super) const AT_THE_TOP: [&str; 2] = ["include", "seeds"];

/// The JSON schema of a recipe (draft 7, which TOML editors read).
pub fn json_schema() -> &'static Value {
    &FOR_EDITORS
}

/// The schema of a recipe without variables.
pub(super) fn top() -> &'static Value {
    &SCHEMA
}

/// The schema of a table at the top of a recipe.
pub(super) fn table(name: &str) -> Option<&'static Value> {
    top()["properties"].get(name)
}

/// The names of the tables at the top of a recipe, in the order in which they are described.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    keys(top()).into_iter().filter(|name| !AT_THE_TOP.contains(name))
}

/// The schema of the stages of a kind.
pub(super) fn stage(kind: &Kind) -> &'static Value {
    let stages = top()["properties"]["stages"]["additionalProperties"]["oneOf"].as_array();
    let of_kind = |stage: &&Value| stage["properties"]["kind"]["const"] == kind.name;
    stages.and_then(|stages| stages.iter().find(of_kind)).unwrap_or(&Value::Null)
}

/// The keys that a schema of a table lists.
pub(super) fn keys(table: &Value) -> Vec<&str> {
    let properties = table["properties"].as_object();
    properties.map_or(Vec::new(), |properties| properties.keys().map(String::as_str).collect())
}

/// The keys that are read into a type.
pub(crate) fn keys_of<T: JsonSchema>() -> Vec<String> {
    let schema = generator().into_root_schema_for::<T>().to_value();
    keys(&schema).into_iter().map(str::to_owned).collect()
}

/// The keys of a stage that are read into one type.
pub(crate) fn one<A: JsonSchema>(generator: &mut SchemaGenerator) -> Vec<Schema> {
    vec![generator.subschema_for::<A>()]
}

/// The keys of a stage that are read into two types.
pub(crate) fn both<A: JsonSchema, B: JsonSchema>(generator: &mut SchemaGenerator) -> Vec<Schema> {
    vec![generator.subschema_for::<A>(), generator.subschema_for::<B>()]
}

fn generator() -> SchemaGenerator {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    settings.into_generator()
}

fn recipe() -> Value {
    let mut generator = generator();
    let mut of = |schema: fn(&mut SchemaGenerator) -> Schema| simplified(schema(&mut generator).to_value());
    let model = of(|generator| generator.subschema_for::<Dimensions>());
    let data = of(|generator| generator.subschema_for::<DataTable>());
    let compute = of(|generator| generator.subschema_for::<ComputeChoice>());
    let comparison = of(|generator| generator.subschema_for::<Comparison>());
    let kinds: Vec<(&Kind, Value)> =
        KINDS.iter().map(|kind| (*kind, simplified(of_kind(kind, &mut generator)))).collect();

    let several =
        json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
    let mut tables = Map::new();
    let include = "Recipes that this one builds on, relative to it. Its own keys override theirs.";
    tables.insert("include".into(), described(several, include));
    let about = "How many times to run what depends on a seed, each time with other seeds: sets of seeds, over which reports average.";
    let number = json!({ "type": "integer", "minimum": 1, "maximum": SeedSet::MOST, "default": 1 });
    tables.insert("seeds".into(), described(number, about));
    let about = "Values that other keys use as `\"${NAME}\"`, alone or within a text.";
    tables.insert(variables::TABLE.into(), described(variables_table(), about));
    let about = "The text of all stages. A stage may override it key by key in its own `data`.";
    tables.insert("data".into(), described(data, about));
    let about = "The dimensions of new models, as `[models.NAME]`.";
    tables.insert(
        "models".into(),
        described(json!({ "type": "object", "additionalProperties": model }), about),
    );
    for (kind, schema) in &kinds {
        let Some(table) = kind.table else { continue };
        let about =
            format!("The keys of all stages of kind `{}`, which a stage's own keys override.", kind.name);
        tables.insert(table.into(), described(schema.clone(), &about));
    }
    let about = "What stages compute on. A stage's own keys override it, and flags of the command line override both. By default, stages compute with burn on the CPU in f32, on all cores.";
    tables.insert("compute".into(), described(compute, about));
    let of_stages: Vec<Value> = kinds.iter().map(|(kind, schema)| stage_of(kind, schema)).collect();
    let any = included_stage(kinds.iter().map(|(_, schema)| schema));
    let stage = json!({ "type": "object", "oneOf": of_stages.into_iter().chain([any]).collect::<Vec<_>>() });
    let about = "What to do, as `[stages.NAME]`. A stage runs after those that it names.";
    tables.insert(
        "stages".into(),
        described(json!({ "type": "object", "additionalProperties": stage }), about),
    );
    tables.insert("comparison".into(), comparison);

    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Deep Fusion recipe",
        "description": "A graph of stages that train, fuse, fine-tune and evaluate T5 models.",
        "type": "object",
        "properties": tables,
        "additionalProperties": false,
    })
}

fn variables_table() -> Value {
    let one = json!([{ "type": "string" }, { "type": "number" }, { "type": "boolean" }]);
    let mut value = json!({ "anyOf": one, "description": "Its value, which keeps its type where `\"${NAME}\"` is all that a key says." });
    if let Some(Value::Array(any)) = value.get_mut("anyOf") {
        any.push(json!({ "type": "array", "items": { "anyOf": one } }));
    }
    json!({ "type": "object", "additionalProperties": value })
}

fn simplified(mut schema: Value) -> Value {
    simplify(&mut schema);
    schema
}

fn described(mut schema: Value, about: &str) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        // Editors show the first keys first.
        schema.shift_insert(0, "description".into(), about.into());
    }
    schema
}

/// The keys of a kind of stage, other than `kind`.
fn of_kind(kind: &Kind, generator: &mut SchemaGenerator) -> Value {
    let mut properties = Map::new();
    let compute = kind.computes.then(|| generator.subschema_for::<ComputeChoice>());
    for part in (kind.keys)(generator).into_iter().chain(compute) {
        let mut part = part.to_value();
        if let Some(Value::Object(own)) = part.get_mut("properties").map(Value::take) {
            properties.extend(own);
        }
    }
    // None is required: a stage may have them from its kind's table, or from an included recipe.
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn stage_of(kind: &Kind, schema: &Value) -> Value {
    let mut properties =
        Map::from_iter([("kind".to_owned(), json!({ "const": kind.name, "description": kind.about }))]);
    properties.extend(schema["properties"].as_object().cloned().unwrap_or_default());
    json!({
        "description": kind.about, "type": "object", "properties": properties, "required": ["kind"],
        "additionalProperties": false,
    })
}

/// A stage that an included recipe defines: it says no kind, and any key of any kind.
fn included_stage<'a>(kinds: impl Iterator<Item = &'a Value>) -> Value {
    let mut properties: Map<String, Value> = Map::new();
    for (key, schema) in kinds.filter_map(|kind| kind["properties"].as_object()).flatten() {
        match properties.get_mut(key) {
            Some(known) if known != schema => *known = json!({ "anyOf": [known.take(), schema] }),
            Some(_) => {}
            None => drop(properties.insert(key.clone(), schema.clone())),
        }
    }
    json!({
        "description": "Other keys of a stage that an included recipe defines.", "type": "object",
        "not": { "required": ["kind"] }, "properties": properties, "additionalProperties": false,
    })
}

/// Leaves out what TOML has no use for, and adds the short form of tables with a tag: `optimizer = "adamw"`
/// for `optimizer = { name = "adamw" }`.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(simplify),
        Value::Object(object) => {
            object.values_mut().for_each(simplify);
            object.shift_remove("format");
            if object.get("default") == Some(&Value::Null) {
                object.shift_remove("default");
            }
            without_null(object);
            add_short_form(object);
        }
        _ => {}
    }
}

/// TOML has no null: a key that may be absent is absent.
fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    for key in ["anyOf", "allOf"] {
        let Some(Value::Array(parts)) = object.get_mut(key) else { continue };
        parts.retain(|part| part["type"] != "null");
        if let [only] = parts.as_mut_slice() {
            let only = only.take();
            object.shift_remove(key);
            for (key, value) in only.as_object().cloned().unwrap_or_default() {
                object.entry(key).or_insert(value);
            }
        }
    }
}

fn add_short_form(object: &mut Map<String, Value>) {
    let Some(Tagged { branches, tag }) = Tagged::of(object) else { return };
    let tag = tag.to_owned();
    let short = |branch: &&&Value| branch["required"].as_array().is_some_and(|required| required.len() == 1);
    let name = |branch: &Value| Some(tag_of(branch)?.1.to_owned());
    let names: Vec<String> = branches.iter().filter(short).filter_map(|branch| name(branch)).collect();
    let default = object.get("default").and_then(|default| default[tag.as_str()].as_str()).map(str::to_owned);
    if let (false, Some(Value::Array(mut all))) = (names.is_empty(), object.shift_remove("oneOf")) {
        // In a table without a tag, the default's is understood.
        let understood =
            all.iter_mut().find(|branch| tag_of(branch).map(|(_, name)| name) == default.as_deref());
        if let Some(Value::Object(branch)) = understood.filter(|_| default.is_some()) {
            branch.shift_remove("required");
        }
        all.insert(0, json!({ "type": "string", "enum": names }));
        object.insert("anyOf".into(), Value::Array(all));
    }
}

/// A schema of tables of several kinds, told apart by a key.
pub(super) struct Tagged<'a> {
    pub tag: &'a str,
    pub branches: Vec<&'a Value>,
}

impl<'a> Tagged<'a> {
    pub fn of(schema: &'a Map<String, Value>) -> Option<Self> {
        let alternatives = schema.get("oneOf").or_else(|| schema.get("anyOf"))?.as_array()?;
        let branches: Vec<&Value> = alternatives.iter().filter(|branch| tag_of(branch).is_some()).collect();
        let (tag, _) = tag_of(branches.first()?)?;
        Some(Tagged { tag, branches })
    }

    /// The schema of the tables with this tag.
    pub fn branch(&self, name: &str) -> Option<&'a Value> {
        let same = |branch: &&&Value| tag_of(branch).is_some_and(|(_, own)| spelt_alike(own, name));
        self.branches.iter().find(same).copied()
    }

    pub fn names(&self) -> Vec<&'a str> {
        self.branches.iter().filter_map(|branch| Some(tag_of(branch)?.1)).collect()
    }
}

/// The key that tells a table's kind, and the kind.
pub(super) fn tag_of(branch: &Value) -> Option<(&str, &str)> {
    let properties = branch["properties"].as_object()?;
    properties.iter().find_map(|(key, schema)| Some((key.as_str(), schema["const"].as_str()?)))
}

/// Whether two names differ only in case, hyphens and underscores.
pub(super) fn spelt_alike(one: &str, other: &str) -> bool {
    let plain = |name: &str| -> String {
        name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
    };
    plain(one) == plain(other)
}
