//! The code shipped with grouped models: transformers' T5 with grouped normalisation.

use serde_json::{Value, json};

/// The file with the model's classes, imported when transformers loads a grouped model.
pub const MODELING_FILE: &str = "modeling_deep_fusion_t5.py";

/// The files' names and contents.
pub const FILES: [(&str, &str); 2] = [
    ("configuration_deep_fusion_t5.py", include_str!("configuration_deep_fusion_t5.py")),
    (MODELING_FILE, include_str!("modeling_deep_fusion_t5.py")),
];

/// `auto_map` in `config.json`: where transformers' Auto classes find the model's classes.
pub fn auto_map() -> Value {
    json!({
        "AutoConfig": "configuration_deep_fusion_t5.DeepFusionT5Config",
        "AutoModel": "modeling_deep_fusion_t5.DeepFusionT5Model",
        "AutoModelForSeq2SeqLM": "modeling_deep_fusion_t5.DeepFusionT5ForConditionalGeneration",
        "AutoModelForTextEncoding": "modeling_deep_fusion_t5.DeepFusionT5EncoderModel",
    })
}
