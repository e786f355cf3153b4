//! What `generation_config.json` says about answers.

use std::path::{Path, PathBuf};

use fusion_core::json;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Rules;
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
    /// Keys that would change an answer and are not followed, with their values.
    pub not_followed: Vec<(&'static str, Value)>,
    keys: Keys,
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
}

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
        Ok(GenerationSettings { path, not_followed, keys })
    }

    /// The tokens that end an answer in transformers.
    pub fn ends(&self) -> &[i32] {
        &self.keys.eos_token_id.0
    }

    /// The most tokens of an answer, if the settings name a length.
    pub fn max_new_tokens(&self) -> Option<usize> {
        // A length includes the token that the decoder starts with.
        self.keys.max_new_tokens.or(self.keys.max_length.map(|length| length.saturating_sub(1)))
    }

    /// The rules for answers. An answer also ends with `eos`, the tokenizer's end token, with which a T5 is
    /// trained.
    pub fn rules(&self, eos: i32) -> Rules {
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
