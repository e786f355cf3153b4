//! What another seed changes: how far apart trainings end that differ in nothing else.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::StageReport;

/// The number of stages behind a stage that are looked at.
const DEPTH: usize = 64;

/// How much losses deviate that differ only by seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Variation {
    /// The standard deviation, pooled over groups of trainings.
    pub deviation: f64,
    /// The trainings that it is from.
    pub trainings: Vec<String>,
}

/// For each finished stage, everything that made it but seeds. Equal for stages that differ by seeds alone.
pub fn apart_from_seeds(stages: &[StageReport]) -> BTreeMap<&str, String> {
    let known: BTreeMap<&str, &Value> = stages
        .iter()
        .filter_map(|stage| Some((stage.entry.name.as_str(), stage.settings.as_ref()?)))
        .collect();
    let has_kind = known.iter().filter(|(_, settings)| settings.get("kind").is_some());
    has_kind.map(|(name, settings)| (*name, without_seeds(settings, &known, DEPTH).to_string())).collect()
}

fn without_seeds(value: &Value, stages: &BTreeMap<&str, &Value>, depth: usize) -> Value {
    let inner = |value: &Value| without_seeds(value, stages, depth);
    match value {
        Value::Object(object) => {
            let is_input = object.keys().all(|key| matches!(key.as_str(), "stage" | "step"));
            let stage = object.get("stage").and_then(Value::as_str).filter(|_| is_input);
            if let Some(settings) = stage.and_then(|stage| stages.get(stage)).filter(|_| depth > 0) {
                let mut input = json!({ "stage": without_seeds(settings, stages, depth - 1) });
                if let Some(step) = object.get("step") {
                    input["step"] = step.clone();
                }
                return input;
            }
            let kept = object.iter().filter(|(key, _)| *key != "seed");
            Value::Object(kept.map(|(key, value)| (key.clone(), inner(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(inner).collect()),
        other => other.clone(),
    }
}

/// What another seed changes, as the trainings of a run show it: preferably those that are compared.
pub fn variation(stages: &[StageReport], compared: &[&str]) -> Option<Variation> {
    let keys = apart_from_seeds(stages);
    let mut groups: BTreeMap<&str, Vec<(&str, f64)>> = BTreeMap::new();
    for stage in stages {
        let name = stage.entry.name.as_str();
        let quality = stage.shown.as_ref().and_then(|shown| shown.overview.quality);
        if let (Some(key), Some(quality)) = (keys.get(name), quality) {
            groups.entry(key).or_default().push((name, quality.loss));
        }
    }
    let several: Vec<&Vec<(&str, f64)>> = groups.values().filter(|group| group.len() > 1).collect();
    let own = several.iter().copied().filter(|group| group.iter().any(|(name, _)| compared.contains(name)));
    let own: Vec<_> = own.collect();
    pooled(if own.is_empty() { &several } else { &own })
}

fn pooled(groups: &[&Vec<(&str, f64)>]) -> Option<Variation> {
    let degrees: usize = groups.iter().map(|group| group.len() - 1).sum();
    let squares = |group: &&Vec<(&str, f64)>| {
        let mean = group.iter().map(|(_, loss)| loss).sum::<f64>() / group.len() as f64;
        group.iter().map(|(_, loss)| (loss - mean).powi(2)).sum::<f64>()
    };
    let deviation = (groups.iter().map(squares).sum::<f64>() / degrees as f64).sqrt();
    let trainings =
        groups.iter().flat_map(|group| group.iter().map(|(name, _)| (*name).to_owned())).collect();
    (degrees > 0).then_some(Variation { deviation, trainings })
}
