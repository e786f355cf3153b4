//! The schema as editors have it, who see a recipe before its variables have values.

use serde_json::{Map, Value, json};

use super::variables;

/// Lets every value be a variable, such as `steps = "${steps}"`.
pub fn with_variables(mut schema: Value) -> Value {
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
