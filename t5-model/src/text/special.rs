//! What the files beside a vocabulary say of its special tokens.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::bytes;
use super::error::{Result, TextError};
use super::tokenizer::{EOS, PAD, UNK, sentinel_name};
use crate::keys::{self, TOKENIZER};

/// In the order in which transformers adds them.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say.
#[derive(Clone, Debug)]
pub(super) struct Special {
    pub pad: String,
    pub eos: String,
    pub unk: String,
    /// All of them, in the order in which those that are no tokens yet become some.
    pub added: Vec<AddedToken>,
    /// The number of sentinels after the pieces of a SentencePiece model.
    pub sentinels: usize,
    /// Whether the vocabulary is ByT5's, whatever else lies in the folder.
    pub bytes: bool,
    /// Whether special tokens in a text are split like all text.
    pub split: bool,
    /// Whether spaces before punctuation are dropped from decoded text.
    pub clean_up: bool,
}

impl Default for Special {
    fn default() -> Self {
        Special {
            pad: PAD.to_owned(),
            eos: EOS.to_owned(),
            unk: UNK.to_owned(),
            added: Vec::new(),
            sentinels: SENTINELS,
            bytes: false,
            split: false,
            clean_up: false,
        }
    }
}

/// T5's number of sentinels, which are not in the SentencePiece model.
const SENTINELS: usize = 100;
/// More would be no vocabulary.
const MAX_SENTINELS: usize = 1 << 16;

/// A token in JSON: its text, or an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Object {
        content: String,
        #[serde(default)]
        single_word: bool,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        normalized: Option<bool>,
        special: Option<bool>,
    },
}

/// Special tokens of ByT5 take the spaces around them, unless the files say otherwise.
fn byt5s(name: &str) -> AddedToken {
    AddedToken::from(name, true).lstrip(true).rstrip(true)
}

impl Token {
    fn content(&self) -> &str {
        match self {
            Token::Text(content) | Token::Object { content, .. } => content,
        }
    }

    /// As the vocabulary has it; `special` unless the token says otherwise.
    fn added(&self) -> AddedToken {
        match self {
            Token::Text(content) => AddedToken::from(content, true),
            Token::Object { content, single_word, lstrip, rstrip, normalized, special } => {
                let special = special.unwrap_or(true);
                AddedToken::from(content, special)
                    .single_word(*single_word)
                    .lstrip(*lstrip)
                    .rstrip(*rstrip)
                    .normalized(normalized.unwrap_or(!special))
            }
        }
    }
}

impl Special {
    /// Of ByT5.
    pub fn bytes() -> Self {
        let mut special = Special { bytes: true, ..Special::default() };
        special.added = [PAD, EOS, UNK].map(byt5s).to_vec();
        special.add_sentinels(bytes::SENTINELS);
        special
    }

    fn add_sentinels(&mut self, number: usize) {
        self.added.extend((0..number).map(|index| AddedToken::from(sentinel_name(index), true)));
    }

    /// Whether the folder's tokenizer is ByT5's: its class says so, which is the model's if it has none itself.
    ///
    /// # Errors
    /// A file is no JSON.
    pub fn is_bytes(folder: &Path) -> Result<bool> {
        for name in ["tokenizer_config.json", "config.json"] {
            let config = read(&folder.join(name))?.unwrap_or_default();
            if let Some(class) = config.get("tokenizer_class").filter(|class| !class.is_null()) {
                return Ok(class == bytes::CLASS);
            }
        }
        Ok(false)
    }

    /// Reads the files of a folder.
    ///
    /// # Errors
    /// A file is no JSON, or a key is refused or of another type; the error names it.
    pub fn read(folder: &Path) -> Result<Self> {
        let is_bytes = Self::is_bytes(folder)?;
        let path = folder.join("tokenizer_config.json");
        let mut config = read(&path)?.unwrap_or_default();
        keys::check(TOKENIZER, &config, &path)
            .map_err(|error| TextError::TokenizerFiles { problem: error.to_string() })?;
        let mut added: Vec<AddedToken> = Vec::new();
        match config.get("added_tokens_decoder") {
            Some(decoder) => {
                let decoder: BTreeMap<String, Token> = parsed(decoder, "added_tokens_decoder", &path)?;
                let mut tokens: Vec<(u64, Token)> = Vec::new();
                for (id, token) in decoder {
                    let number = id.parse().map_err(|_| invalid(&path, "added_tokens_decoder", &id))?;
                    tokens.push((number, token));
                }
                tokens.sort_by_key(|(id, _)| *id);
                added.extend(tokens.iter().map(|(_, token)| token.added()));
            }
            None => {
                let map = read(&folder.join("special_tokens_map.json"))?;
                config.extend(map.unwrap_or_default());
                let list = folder.join("added_tokens.json");
                let mut tokens: Vec<(String, u64)> = Vec::new();
                for (token, id) in read(&list)?.unwrap_or_default() {
                    let id = id.as_u64().ok_or_else(|| invalid(&list, &token, &id.to_string()))?;
                    tokens.push((token, id));
                }
                tokens.sort_by_key(|(_, id)| *id);
                let special: Vec<String> =
                    Self::named(&config, &path, is_bytes)?.iter().map(|t| t.content.clone()).collect();
                let token = |(token, _)| {
                    let is_special = special.contains(&token);
                    AddedToken::from(token, is_special)
                };
                added.extend(tokens.into_iter().map(token));
            }
        }
        let named = Self::named(&config, &path, is_bytes)?;
        // What the decoder of ids says of a token of bytes is all that it is.
        let is_known = |token: &AddedToken| added.iter().any(|known| known.content == token.content);
        added.extend(named.into_iter().filter(|token| !is_bytes || !is_known(token)).collect::<Vec<_>>());
        let name = |key: &str, usual: &str| -> Result<String> {
            match config.get(key) {
                None | Some(Value::Null) => Ok(usual.to_owned()),
                Some(token) => Ok(parsed::<Token>(token, key, &path)?.content().to_owned()),
            }
        };
        let flag = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(flag) => parsed(flag, key, &path),
        };
        let sentinels = match config.get("extra_ids") {
            None | Some(Value::Null) if is_bytes => bytes::SENTINELS,
            None | Some(Value::Null) => SENTINELS,
            Some(count) => parsed(count, "extra_ids", &path)?,
        };
        if sentinels > MAX_SENTINELS {
            return Err(invalid(&path, "extra_ids", &sentinels.to_string()));
        }
        let mut special = Special {
            pad: name("pad_token", PAD)?,
            eos: name("eos_token", EOS)?,
            unk: name("unk_token", UNK)?,
            added,
            sentinels,
            bytes: is_bytes,
            split: flag("split_special_tokens")?,
            clean_up: flag("clean_up_tokenization_spaces")?,
        };
        if is_bytes {
            for name in [special.pad.clone(), special.eos.clone(), special.unk.clone()] {
                if !special.added.iter().any(|token| token.content == name) {
                    special.added.push(byt5s(&name));
                }
            }
            // As its class does, where the files name no sentinels.
            if !special.added.iter().any(|token| token.content.contains("extra_id")) {
                special.add_sentinels(sentinels);
            }
        }
        Ok(special)
    }

    /// The tokens that have a role, then those that have none.
    fn named(config: &Map<String, Value>, path: &Path, bytes: bool) -> Result<Vec<AddedToken>> {
        let mut tokens = Vec::new();
        let of = |key: &str| config.get(key).filter(|token| !token.is_null());
        for key in NAMED {
            match of(key).map(|token| parsed::<Token>(token, key, path)).transpose()? {
                Some(Token::Text(name))
                    if bytes && ["eos_token", "unk_token", "pad_token"].contains(&key) =>
                {
                    tokens.push(byt5s(&name));
                }
                Some(token) => tokens.push(token.added().special(true)),
                None => {}
            }
        }
        let others = ["extra_special_tokens", "additional_special_tokens"];
        let Some((key, more)) = others.into_iter().find_map(|key| Some((key, of(key)?))) else {
            return Ok(tokens);
        };
        let more: Vec<Token> = match more {
            Value::Object(more) => {
                let more = more.iter().filter(|(_, token)| !token.is_null());
                more.map(|(_, token)| parsed(token, key, path)).collect::<Result<_>>()?
            }
            more => parsed(more, key, path)?,
        };
        tokens.extend(more.iter().map(|token| token.added().special(true)));
        Ok(tokens)
    }
}

fn read(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    let json = serde_json::from_slice(&bytes);
    json.map(Some).map_err(|error| TextError::Tokenizer { path: path.to_owned(), reason: error.to_string() })
}

fn parsed<T: serde::de::DeserializeOwned>(value: &Value, key: &str, path: &Path) -> Result<T> {
    T::deserialize(value).map_err(|_| invalid(path, key, &value.to_string()))
}

fn invalid(path: &Path, key: &str, value: &str) -> TextError {
    let reason = format!("{key} is {value}, which is nothing that {key} can be");
    TextError::Tokenizer { path: path.to_owned(), reason }
}
