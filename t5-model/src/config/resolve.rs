//! One meaning for what a `config.json` may say in several ways.

use std::path::Path;

use serde_json::{Map, Value};

use crate::keys::{self, CONFIG};
use crate::{Error, Result};

/// transformers' general names for sizes of a T5. It sets them after T5's own, so they win.
const ALIASES: [(&str, &str); 4] = [
    ("hidden_size", "d_model"),
    ("head_dim", "d_kv"),
    ("num_attention_heads", "num_heads"),
    ("num_hidden_layers", "num_layers"),
];

/// What transformers takes for a size that is not there.
const DEFAULTS: [(&str, usize); 6] = [
    ("vocab_size", 32_128),
    ("d_model", 512),
    ("d_kv", 64),
    ("d_ff", 2048),
    ("num_layers", 6),
    ("num_heads", 8),
];

/// Keys that transformers lets be null, which is to leave them out.
const NULLABLE: [&str; 5] = [
    "num_decoder_layers",
    "pad_token_id",
    "decoder_start_token_id",
    "tie_word_embeddings",
    "scale_decoder_outputs",
];

/// transformers' names for one function, T5 1.1's approximation of GELU.
const GELU: [&str; 5] = ["gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"];

/// A configuration in which each thing is said once and in one way: under T5's own names, with the MLP that
/// transformers would compute in `feed_forward_proj`.
///
/// # Errors
/// A key is refused: the error names it.
pub(super) fn resolve(config: &Map<String, Value>, path: &Path) -> Result<Map<String, Value>> {
    keys::check(CONFIG, config, path)?;
    let mut resolved = config.clone();
    for key in NULLABLE {
        if resolved.get(key).is_some_and(Value::is_null) {
            resolved.shift_remove(key);
        }
    }
    for (key, size) in DEFAULTS {
        resolved.entry(key).or_insert_with(|| size.into());
    }
    // As deep as the encoder is before a general name changes that.
    if let (false, Some(layers)) =
        (resolved.contains_key("num_decoder_layers"), config.get("num_hidden_layers"))
        && !layers.is_null()
    {
        let layers = resolved["num_layers"].clone();
        resolved.insert("num_decoder_layers".into(), layers);
    }
    for (alias, key) in ALIASES {
        if let Some(value) = resolved.shift_remove(alias) {
            resolved.insert(key.into(), value);
        }
    }
    let feed_forward =
        feed_forward(config).map_err(|problem| Error::Config { path: path.into(), problem })?;
    if let Some(feed_forward) = feed_forward {
        resolved.insert("feed_forward_proj".into(), feed_forward.into());
    }
    Ok(resolved)
}

/// The MLP that transformers would compute: `relu` or `gated-gelu`. `None` if no key says anything.
fn feed_forward(config: &Map<String, Value>) -> Result<Option<&'static str>, String> {
    let text = |key: &'static str| match config.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => Err(format!("{key} is {other}; it is the name of an activation")),
    };
    let gated = match config.get("is_gated_act") {
        None => None,
        Some(Value::Bool(gated)) => Some(*gated),
        Some(other) => return Err(format!("is_gated_act is {other}; it is true or false")),
    };
    let (proj, act) = (text("feed_forward_proj")?, text("dense_act_fn")?);
    if (proj, act, gated) == (None, None, None) {
        return Ok(None);
    }
    let proj = proj.unwrap_or("relu");
    let (is_gated, own) = match proj.split_once('-') {
        None => (false, proj),
        Some(("gated", "gelu")) => (true, "gelu_new"), // so in transformers, for T5 1.1
        Some(("gated", own)) => (true, own),
        Some(_) => {
            return Err(format!("feed_forward_proj is {proj:?}; it is `ACTIVATION` or `gated-ACTIVATION`"));
        }
    };
    let (act, gated) = (act.unwrap_or(own), gated.unwrap_or(is_gated));
    match (act, gated) {
        ("relu", false) => Ok(Some("relu")),
        (act, true) if GELU.contains(&act) => Ok(Some("gated-gelu")),
        _ => {
            let said = ["feed_forward_proj", "dense_act_fn", "is_gated_act"]
                .map(|key| config.get(key).map(|value| format!("{key} is {value}")));
            let said: Vec<String> = said.into_iter().flatten().collect();
            let gate = if gated { "with" } else { "without" };
            Err(format!(
                "{}, so its MLP is {act} {gate} a gate; T5's is relu without one (T5 1.0) or gelu_new with one \
                 (T5 1.1), and no other can be computed",
                said.join(", ")
            ))
        }
    }
}
