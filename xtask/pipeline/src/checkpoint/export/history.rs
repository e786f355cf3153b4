//! What a model was made from, for its card: a tree of ancestors, and the commands that reproduce it.

use std::path::Path;

use fusion_core::lineage::{Fusion, Lineage, Parent, Training, TreeLine};
use fusion_core::plan::{Direction, Fill, StandardDeviation};
use t5_model::method::Method;

use crate::numbers::{count, thousands};

/// Shortens labels that are absolute paths to their last two components: the rest describes a machine, not a
/// model.
pub fn hide_paths(lineage: &mut Lineage) {
    for parent in lineage.fusion.iter_mut().flat_map(|fusion| &mut fusion.parents) {
        if Path::new(&parent.label).is_absolute() {
            let parts: Vec<&str> = parent.label.split('/').filter(|part| !part.is_empty()).collect();
            parent.label = parts[parts.len().saturating_sub(2)..].join("/");
        }
        if let Some(lineage) = &mut parent.lineage {
            hide_paths(lineage);
        }
    }
}

/// A nested Markdown list.
pub fn tree(lineage: &Lineage) -> String {
    let line = |(depth, line)| {
        let text = match line {
            TreeLine::Random => "- random weights".to_owned(),
            TreeLine::Fused(fusion) => format!("- {}", method(fusion)),
            TreeLine::Parent(Parent { label, blake3, .. }) => {
                format!("  - {}{}", code(label), short(blake3.as_deref()))
            }
            TreeLine::AsAbove => "- as above".to_owned(),
            TreeLine::Unknown => "- history unknown".to_owned(),
            TreeLine::Trained(training) => format!("- {}", trained(training)),
        };
        format!("{}{text}\n", "    ".repeat(depth))
    };
    lineage.tree().into_iter().map(line).collect()
}

fn method(fusion: &Fusion) -> String {
    let mut text = format!(
        "{} of {}: normalisation {}, cross-connections {}",
        fusion.method,
        fusion.parents.len(),
        fusion.normalisation,
        fusion.cross
    );
    if let Some(depth) = fusion.other.get("depth").and_then(|depth| depth.as_str()) {
        text += &format!(", shallower parents in the blocks at the {depth}");
    }
    text
}

fn trained(training: &Training) -> String {
    let (steps, tokens) = (thousands(training.steps), count(training.tokens as f64));
    format!("trained {steps} steps, {tokens} tokens, {}FLOP", count(training.flops))
}

fn short(hash: Option<&str>) -> String {
    hash.map_or(String::new(), |hash| format!(" ({})", hash.chars().take(12).collect::<String>()))
}

/// Text as Markdown code; a label that contains a backtick is delimited by two.
fn code(text: &str) -> String {
    let text = one_line(text);
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Commands in the order in which to run them. Training text, which no lineage records, is written `TEXT`.
pub fn commands(lineage: &Lineage, name: &str) -> String {
    let (mut text, mut made) = (String::new(), Vec::new());
    let model = remake(lineage, name, &mut made, &mut text);
    text + &format!(
        "cargo xtask export {} --output {}\n",
        quoted(&model),
        quoted(&format!("{name}-exported"))
    )
}

/// Adds the commands that make a model, and returns where they leave it. `made` maps the labels of ancestors
/// that the commands have already made to their places.
fn remake(lineage: &Lineage, name: &str, made: &mut Vec<(String, String)>, text: &mut String) -> String {
    let Some(fusion) = &lineage.fusion else {
        let steps: u64 = lineage.training.iter().map(|training| training.steps).sum();
        *text += &format!("# {}: random weights, trained {} steps\n", one_line(name), thousands(steps));
        return name.to_owned();
    };
    for Parent { label, lineage, .. } in &fusion.parents {
        if made.iter().any(|(known, _)| known == label) {
            continue;
        }
        let model = match lineage {
            Some(lineage) => remake(lineage, label, made, text),
            None => {
                *text += &format!("# {}: history unknown\n", one_line(label));
                label.clone()
            }
        };
        made.push((label.clone(), model));
    }
    let labels = fusion.parents.iter().map(|parent| &parent.label);
    let places = labels.filter_map(|label| made.iter().find(|(known, _)| known == label));
    let parents: Vec<&str> = places.map(|(_, place)| place.as_str()).collect();
    *text += &fuse(fusion, &parents, name);
    let mut model = name.to_owned();
    for (index, training) in lineage.training.iter().enumerate() {
        let output = format!("{name}-trained-{}", index + 1);
        let (from, steps) = (quoted(&model), training.steps);
        let to = quoted(&output);
        *text += &format!("cargo xtask pretrain --from {from} --steps {steps} --text TEXT --output {to}\n");
        model = format!("{output}/model");
    }
    model
}

fn fuse(fusion: &Fusion, parents: &[&str], output: &str) -> String {
    let parents = match parents {
        [first, others @ ..] if !others.is_empty() && others.iter().all(|other| other == first) => {
            format!("{} --times {}", quoted(first), parents.len())
        }
        _ => parents.iter().map(|parent| quoted(parent)).collect::<Vec<_>>().join(" "),
    };
    let mut options = String::new();
    if fusion.method != Method::default().name() {
        options += &format!(" --method {}", quoted(&fusion.method));
    }
    if Method::named(&fusion.method).is_some_and(|method| method.takes("norm")) {
        options += &format!(" --norm {}", fusion.normalisation);
    }
    options += &cross(fusion.cross);
    for key in OPTIONS {
        let value = match fusion.other.get(key) {
            Some(serde_json::Value::String(value)) => value.clone(),
            Some(serde_json::Value::Number(value)) => value.to_string(),
            Some(serde_json::Value::Array(values)) => {
                values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            }
            _ => continue,
        };
        // The noise already includes the seed.
        if key != "seed" || fusion.cross == Fill::Zero {
            options += &format!(" --{} {}", key.replace('_', "-"), quoted(&value));
        }
    }
    if let Some(examples) =
        fusion.other.get("calibration").and_then(|calibration| calibration.get("examples"))
    {
        options += &format!(" --calibrate TEXT --calibrate-examples {examples}");
    }
    format!("cargo xtask fuse {parents}{options} --output {}\n", quoted(output))
}

/// The options of methods that lineages record.
const OPTIONS: [&str; 11] = [
    "depth",
    "weights",
    "times",
    "d_model",
    "num_heads",
    "d_ff",
    "seed",
    "arrangement",
    "new_blocks",
    "optimizer",
    "dtype",
];

fn cross(cross: Fill) -> String {
    let Fill::Normal { std, seed, direction } = cross else { return String::new() };
    let std = match std {
        StandardDeviation::Absolute(std) => format!("normal:{std}"),
        StandardDeviation::Relative(std) => format!("relative:{std}"),
    };
    let direction = match direction {
        Direction::Both => "",
        Direction::Forward => " --direction forward",
        Direction::Backward => " --direction backward",
    };
    format!(" --cross {std} --seed {seed}{direction}")
}

/// Quotes a word for a shell's command line.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:+,=@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
