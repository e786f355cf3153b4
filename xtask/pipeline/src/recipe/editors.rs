//! The schema as editors have it, who see a recipe before its variables have values.

use serde_json::{Map, Value, json};

use super::spelling::SHORT;
use super::variables;

/// The schema of recipes before [short names](SHORT) are spelt out and variables have values.
pub fn before_reading(schema: Value) -> Value {
    let mut schema = with_variables(schema);
    admit_short_names(&mut schema);
    schema
}

/// Lets values of a key have their short names, too.
fn admit_short_names(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(admit_short_names),
        Value::Object(object) => {
            for (key, inner) in object.iter_mut() {
                SHORT
                    .iter()
                    .filter(|(of, ..)| of == key)
                    .for_each(|(_, short, full)| also(inner, full, short));
                admit_short_names(inner);
            }
        }
        _ => {}
    }
}

/// Admits a name wherever another is.
fn also(schema: &mut Value, full: &str, short: &str) {
    match schema {
        Value::Array(items) => {
            if items.iter().any(|item| item == full) {
                items.push(short.into());
            }
            items.iter_mut().for_each(|item| also(item, full, short));
        }
        Value::Object(object) => {
            object.values_mut().for_each(|inner| also(inner, full, short));
            if object.get("const").is_some_and(|name| name == full) {
                object.remove("const");
                object.insert("enum".into(), json!([full, short]));
            }
        }
        _ => {}
    }
}

/// Lets every value be a variable, such as `steps = "${steps}"`.
fn with_variables(mut schema: Value) -> Value {
    if let Some(tables) = schema["properties"].as_object_mut() {
        let others =
            tables.iter_mut().filter(|(name, _)| !["include", variables::TABLE].contains(&name.as_str()));
        others.for_each(|(_, table)| admit_variable(table));
    }
    let variable = json!({
        "type": "string",
        "pattern": r"^\$\{[^}]+\}$",
        "description": "A variable of `[variables]`.",
    });
    schema["definitions"] = json!({ "variable": variable });
    schema
}

fn admit_variable(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    for alternatives in ["anyOf", "oneOf"] {
        let Some(Value::Array(branches)) = object.get_mut(alternatives) else { continue };
        branches.iter_mut().for_each(admit_within);
    }
    admit_within(schema);
    let Value::Object(object) = schema else { return };
    if object.contains_key("const") || is_table(object) || is_text(object) {
        return;
    }
    let variable = json!({ "$ref": "#/definitions/variable" });
    if let Some(Value::Array(any)) = object.get_mut("anyOf") {
        return any.push(variable);
    }
    let about = |key: &str| ["description", "default"].contains(&key);
    let (mut outer, inner): (Map<_, _>, Map<_, _>) =
        std::mem::take(object).into_iter().partition(|(key, _)| about(key));
    outer.insert("anyOf".into(), json!([inner, variable]));
    *object = outer;
}

/// The same for what is in a table or a list.
fn admit_within(schema: &mut Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(admit_variable);
    }
    for key in ["items", "additionalProperties"] {
        schema.get_mut(key).filter(|inner| inner.is_object()).into_iter().for_each(admit_variable);
    }
}

fn is_table(schema: &Map<String, Value>) -> bool {
    let inner = ["properties", "additionalProperties"];
    inner.iter().any(|key| schema.contains_key(*key))
        || schema.get("oneOf").is_some_and(|branches| {
            branches.as_array().is_some_and(|branches| {
                branches.iter().all(|branch| branch.as_object().is_some_and(is_table))
            })
        })
}

/// Whether any text will do.
fn is_text(schema: &Map<String, Value>) -> bool {
    let lists = ["enum", "const", "oneOf"].iter().any(|key| schema.contains_key(*key));
    let own =
        schema.get("type").is_some_and(|name| name == "string") && !lists && !schema.contains_key("pattern");
    let branches = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    own || branches.filter_map(Value::as_object).any(is_text)
}
