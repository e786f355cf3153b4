//! What `generation_config.json` says about answers.

use std::path::{Path, PathBuf};

use fusion_core::json;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Decoding, Rules};
use crate::keys::{self, GENERATION};
use crate::{Error, Result, T5Config, TokenIds};

/// The file's name.
pub const GENERATION_CONFIG: &str = "generation_config.json";

/// The settings with which transformers would generate, from `generation_config.json`, or from `config.json`
/// where there is no such file. See [`GENERATION`] for what is made of each key.
#[derive(Clone, Debug)]
pub struct GenerationSettings {
    /// Where they stand.
    pub path: PathBuf,
    not_followed: Vec<(&'static str, Value)>,
    keys: Keys,
    /// Of keys that are not followed when tokens are drawn, those with a value that would change something.
    not_drawn_by: Vec<(&'static str, Value)>,
}

/// The keys that are followed. Null is the same as nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    decoder_start_token_id: Option<i32>,
    bos_token_id: Option<i32>,
    eos_token_id: TokenIds,
    max_new_tokens: Option<usize>,
    max_length: Option<usize>,
    min_new_tokens: Option<usize>,
    min_length: Option<usize>,
    forced_bos_token_id: Option<i32>,
    forced_eos_token_id: TokenIds,
    suppress_tokens: Option<Vec<i32>>,
    begin_suppress_tokens: Option<Vec<i32>>,
    bad_words_ids: Option<Vec<Vec<i32>>>,
    repetition_penalty: Option<f32>,
    no_repeat_ngram_size: Option<usize>,
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    length_penalty: Option<f64>,
    early_stopping: Option<Value>,
}

/// Keys that matter only when tokens are drawn and are not followed, with the value that changes nothing.
const DRAWN_BY: [(&str, f64); 4] =
    [("typical_p", 1.0), ("epsilon_cutoff", 0.0), ("eta_cutoff", 0.0), ("top_h", 1.0)];

impl GenerationSettings {
    /// Reads the settings beside a model.
    ///
    /// # Errors
    /// The file cannot be read, or a key is of another type or outside the vocabulary; the error names it.
    pub fn of(directory: &Path, config: &T5Config) -> Result<Self> {
        let own = directory.join(GENERATION_CONFIG);
        let (path, values) = match own.is_file() {
            true => (own.clone(), json::read(&own)?),
            false => (directory.join("config.json"), config.to_json()),
        };
        Self::from_json(values, path, config)
    }

    fn from_json(values: Map<String, Value>, path: PathBuf, config: &T5Config) -> Result<Self> {
        let not_followed = keys::not_followed(GENERATION, &values);
        let drawn_by = DRAWN_BY.into_iter().filter_map(|(key, neutral)| {
            let value =
                values.get(key).filter(|value| !value.is_null() && value.as_f64() != Some(neutral))?;
            Some((key, value.clone()))
        });
        let not_drawn_by = drawn_by.collect();
        let fail = |problem| Error::Config { path: path.clone(), problem };
        let keys: Keys = serde_path_to_error::deserialize(Value::Object(values))
            .map_err(|error| fail(format!("{}: {}", error.path(), error.inner())))?;
        let ids = [
            ("decoder_start_token_id", keys.decoder_start_token_id),
            ("bos_token_id", keys.bos_token_id),
            ("forced_bos_token_id", keys.forced_bos_token_id),
        ];
        let ids = ids.into_iter().filter_map(|(key, id)| Some((key, id?)));
        let ends = keys.eos_token_id.0.iter().map(|id| ("eos_token_id", *id));
        let forced = keys.forced_eos_token_id.0.iter().map(|id| ("forced_eos_token_id", *id));
        for (key, id) in ids.chain(ends).chain(forced) {
            if usize::try_from(id).map_or(true, |id| id >= config.vocab_size) {
                let last = config.vocab_size - 1;
                return Err(fail(format!("{key} is {id}; the vocabulary has ids 0 to {last}")));
            }
        }
        if keys.repetition_penalty.is_some_and(|penalty| !(penalty > 0.0 && penalty.is_finite())) {
            return Err(fail("repetition_penalty is not positive".into()));
        }
        Ok(GenerationSettings { path, not_followed, keys, not_drawn_by })
    }

    /// The tokens that end an answer in transformers.
    pub fn ends(&self) -> &[i32] {
        &self.keys.eos_token_id.0
    }

    /// Adds these settings to a way of finding answers: its length and its rules, and those of how it draws or
    /// searches that it leaves open. An answer also ends with `eos`, the tokenizer's end token, with which a
    /// T5 is trained.
    pub fn complete(&self, how: &mut Decoding, eos: i32) {
        let keys = &self.keys;
        // A length includes the token that the decoder starts with.
        let length = keys.max_new_tokens.or(keys.max_length.map(|length| length.saturating_sub(1)));
        how.max_new_tokens = how.max_new_tokens.or(length);
        if how.draws() {
            how.temperature = how.temperature.or(keys.temperature);
            how.top_k = how.top_k.or(keys.top_k.filter(|count| *count > 0));
            how.top_p = how.top_p.or(keys.top_p);
            how.min_p = how.min_p.or(keys.min_p);
        }
        if how.beams > 1 {
            how.length_penalty = how.length_penalty.or(keys.length_penalty);
            how.early_stopping |= keys.early_stopping == Some(Value::Bool(true));
        }
        how.rules = self.rules(eos);
    }

    /// Keys that would change an answer and that this way of finding answers does not follow, with their
    /// values.
    pub fn not_followed(&self, how: &Decoding) -> Vec<(&'static str, Value)> {
        let number = |value: &Value, number: usize| value.as_u64() == Some(number as u64);
        let is_followed = |(key, value): &(&'static str, Value)| match *key {
            "num_beams" => number(value, how.beams),
            "num_return_sequences" => number(value, how.answers),
            "do_sample" => how.draws(),
            _ => false,
        };
        let mut keys: Vec<_> = self.not_followed.iter().filter(|key| !is_followed(key)).cloned().collect();
        if how.draws() {
            keys.extend(self.not_drawn_by.iter().cloned());
        }
        if how.beams > 1 {
            let odd = self.keys.early_stopping.as_ref().filter(|value| value.is_string());
            keys.extend(odd.map(|value| ("early_stopping", value.clone())));
        }
        keys
    }

    fn rules(&self, eos: i32) -> Rules {
        let keys = self.keys.clone();
        let mut ends = keys.eos_token_id.0;
        if !ends.contains(&eos) {
            ends.push(eos);
        }
        Rules {
            start: keys.decoder_start_token_id.or(keys.bos_token_id),
            ends: Some(ends),
            min_length: keys
                .min_new_tokens
                .map_or(keys.min_length.unwrap_or(0), |least| least.saturating_add(1)),
            forced_first: keys.forced_bos_token_id,
            forced_last: keys.forced_eos_token_id.0,
            suppressed: keys.suppress_tokens.unwrap_or_default(),
            suppressed_first: keys.begin_suppress_tokens.unwrap_or_default(),
            bad_words: keys.bad_words_ids.unwrap_or_default(),
            repetition_penalty: keys.repetition_penalty.filter(|penalty| *penalty != 1.0),
            no_repeat_ngram: keys.no_repeat_ngram_size.unwrap_or(0),
        }
    }
}
