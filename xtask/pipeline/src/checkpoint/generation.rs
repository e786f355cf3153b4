//! Settings for generation, and what the user should know of them.

use serde_json::Value;
use t5_model::text::Tokenizer;
use t5_model::{Decoding, GenerationSettings};

use crate::Warning;

/// Where a model's settings and its tokenizer disagree, and which settings are not followed because answers are
/// found in another way.
pub fn generation_warnings(
    settings: &GenerationSettings,
    tokenizer: &Tokenizer,
    how: &Decoding,
) -> Vec<Warning> {
    let file = || settings.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (ends, eos) = (settings.ends().to_vec(), tokenizer.eos_id());
    let mut warnings = Vec::new();
    if !ends.contains(&eos) {
        warnings.push(Warning::OtherEnd { file: file(), ends, eos });
    }
    if !tokenizer.ends_texts() {
        warnings.push(Warning::TextsWithoutEnd);
    }
    let chosen = |key: &str, value: &Value| match key {
        "num_beams" => value.as_u64() == Some(how.beams as u64),
        "num_return_sequences" => value.as_u64() == Some(how.answers as u64),
        "do_sample" => how.draws(),
        _ => false,
    };
    let mut keys = settings.not_followed.clone();
    keys.retain(|(key, value)| !chosen(key, value));
    if !keys.is_empty() {
        warnings.push(Warning::NotFollowed { file: file(), keys });
    }
    warnings
}
