//! T5's vocabulary: text to token ids and back.

use std::collections::BTreeMap;
use std::path::Path;

use fusion_core::Mistaken;
use fusion_core::atomic::write_file_atomically;
use rayon::prelude::*;
use serde::de::IgnoredAny;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokenizers::AddedToken;

use super::bytes;
use super::error::{Result, TextError};
use super::sentencepiece;
use super::special::Special;

pub(super) const PAD: &str = "<pad>";
pub(super) const EOS: &str = "</s>";
pub(super) const UNK: &str = "<unk>";

pub(super) fn sentinel_name(index: usize) -> String {
    format!("<extra_id_{index}>")
}

/// A vocabulary with T5's special tokens (`<pad>`, `</s>`, `<unk>`) and sentinels (`<extra_id_0>`, …).
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pad: i32,
    eos: i32,
    unk: i32,
    /// `<extra_id_0>` first.
    sentinels: Vec<i32>,
    /// Padding, EOS and sentinels, sorted.
    control: Vec<i32>,
    special: Special,
    /// Whether the vocabulary itself ends a text with EOS, when asked for special tokens.
    ends_texts: bool,
    vocab_size: usize,
    fingerprint: String,
}

impl Tokenizer {
    /// ByT5's vocabulary of bytes, with the ids of transformers' `ByT5Tokenizer`: 256 bytes, three special tokens and
    /// 125 sentinels.
    ///
    /// # Errors
    /// Never, unless the `tokenizers` crate fails.
    pub fn bytes() -> Result<Self> {
        let special = Special::bytes();
        let inner = bytes::vocabulary(&special).map_err(|reason| TextError::Encode { reason })?;
        Self::with_special(inner, special, "bytes")
    }

    /// Whether a folder holds a tokenizer: [`FILES`](Self::FILES), or ByT5's, which has no file but settings.
    pub fn is_in(folder: &Path) -> bool {
        let is_bytes = || Special::is_bytes(folder).unwrap_or(false);
        Self::FILES.iter().any(|name| folder.join(name).is_file()) || is_bytes()
    }

    /// The class of transformers that reads the vocabulary without `tokenizer.json`.
    pub fn class(&self) -> &'static str {
        if self.special.bytes { bytes::CLASS } else { "T5Tokenizer" }
    }

    /// The files that hold a vocabulary.
    pub const FILES: [&str; 2] = ["tokenizer.json", "spiece.model"];

    /// Loads `tokenizer.json`, a SentencePiece unigram model (`spiece.model`), or a folder that contains one
    /// of them. A SentencePiece model gets T5's 100 sentinels, with `<extra_id_0>` at the highest id, and
    /// gives the same ids as transformers' conversion to `tokenizer.json`. In a folder, `tokenizer_config.json`,
    /// `special_tokens_map.json` and `added_tokens.json` name the special tokens and add others: see
    /// [`TOKENIZER`](crate::keys::TOKENIZER). A folder whose tokenizer's class is ByT5's gives its vocabulary of
    /// bytes.
    ///
    /// # Errors
    /// If there is no such file, or it is of another kind, or the vocabulary lacks T5's special tokens, or a
    /// key is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() && Special::is_bytes(path)? {
            let special = Special::read(path)?;
            let failed = |reason| TextError::Tokenizer { path: path.to_owned(), reason };
            let inner = bytes::vocabulary(&special).map_err(failed)?;
            return Self::with_special(inner, special, &path.display().to_string());
        }
        let folder = Self::FILES.map(|name| path.join(name));
        let file = match folder.iter().find(|file| file.is_file()) {
            Some(file) => file,
            None if path.is_dir() => return Err(TextError::NoTokenizer { path: path.to_owned() }),
            None => path,
        };
        let special = if path.is_dir() { Special::read(path)? } else { Special::default() };
        let bytes =
            std::fs::read(file).map_err(|source| TextError::Read { path: file.to_owned(), source })?;
        if let Some(what) = Mistaken::of(&bytes) {
            return Err(fusion_core::Error::Mistaken { path: file.to_owned(), what }.into());
        }
        let failed = |reason| TextError::Tokenizer { path: file.to_owned(), reason };
        let inner = if file.extension().is_some_and(|extension| extension == "model") {
            sentencepiece::parse(&bytes, special.sentinels).map_err(failed)?
        } else {
            // The crate panics on input that is not JSON at all.
            serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|error| failed(error.to_string()))?;
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| failed(error.to_string()))?
        };
        Self::with_special(inner, special, &file.display().to_string())
    }

    /// With T5's own special tokens. `origin` names the vocabulary in messages.
    pub(super) fn new(inner: tokenizers::Tokenizer, origin: &str) -> Result<Self> {
        Self::with_special(inner, Special::default(), origin)
    }

    fn with_special(mut inner: tokenizers::Tokenizer, special: Special, origin: &str) -> Result<Self> {
        inner.add_tokens(&special.added);
        inner.set_encode_special_tokens(special.split);
        inner.with_padding(None);
        let untruncated = inner.with_truncation(None).map(|_| ());
        untruncated.map_err(|error| TextError::Encode { reason: error.to_string() })?;

        let vocabulary: BTreeMap<u32, String> =
            inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        let vocab_size = vocabulary.last_key_value().map_or(0, |(&id, _)| id as usize + 1);
        let id = |token: &str| {
            let missing = || TextError::MissingToken { origin: origin.to_owned(), token: token.to_owned() };
            let id = inner.token_to_id(token).ok_or_else(missing)?;
            i32::try_from(id).map_err(|_| missing())
        };
        let (pad, eos, unk) = (id(&special.pad)?, id(&special.eos)?, id(&special.unk)?);
        let sentinels: Vec<_> = (0..).map_while(|index| id(&sentinel_name(index)).ok()).collect();
        if special.eos != EOS && !special.bytes {
            let template = sentencepiece::ending(&special.eos, eos as u32);
            inner.with_post_processor(Some(template.map_err(|reason| TextError::Encode { reason })?));
        }
        let ends_texts =
            special.bytes || inner.encode_fast("", true).is_ok_and(|ids| ids.get_ids() == [eos as u32]);
        let mut control: Vec<_> = sentinels.iter().copied().chain([pad, eos]).collect();
        control.sort_unstable();
        let fingerprint = fingerprint(&vocabulary);
        Ok(Self { inner, pad, eos, unk, sentinels, control, special, ends_texts, vocab_size, fingerprint })
    }

    /// The ids of a text, without EOS.
    pub fn encode(&self, text: &str) -> Result<Vec<i32>> {
        if self.special.bytes {
            return Ok(bytes::encode(&self.inner, text));
        }
        Ok(ids(self.inner.encode_fast(text, false).map_err(encoding)?.get_ids()))
    }

    /// The ids of each text, without EOS, computed on all cores.
    pub fn encode_batch<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<i32>>> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        if self.special.bytes {
            return Ok(texts.par_iter().map(|text| bytes::encode(&self.inner, text)).collect());
        }
        let encodings = self.inner.encode_batch_fast(texts, false).map_err(encoding)?;
        Ok(encodings.iter().map(|encoding| ids(encoding.get_ids())).collect())
    }

    /// The text for some ids, without special tokens or ids outside the vocabulary (a model has more rows
    /// than its vocabulary has tokens; labels are padded with -100).
    pub fn decode(&self, ids: &[i32]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().filter_map(|&id| u32::try_from(id).ok()).collect();
        if self.special.bytes {
            return Ok(bytes::decode(&self.inner, &ids, |id| self.is_special(id)));
        }
        let text = self.inner.decode(&ids, true).map_err(encoding)?;
        Ok(if self.special.clean_up { without_spaces_before_punctuation(text) } else { text })
    }

    /// Whether the vocabulary ends a text with EOS by itself, as T5's does. All of this project's inputs end
    /// with EOS, whether it does or not.
    pub fn ends_texts(&self) -> bool {
        self.ends_texts
    }

    /// The text for some ids, with sentinels and unknown tokens as transformers shows them
    /// (`<extra_id_0> dog<extra_id_1> cat`), but without padding and EOS.
    pub fn decode_with_sentinels(&self, ids: &[i32]) -> Result<String> {
        let said = ids.iter().filter(|id| **id != self.pad && **id != self.eos);
        let ids: Vec<u32> = said.filter_map(|&id| u32::try_from(id).ok()).collect();
        if self.special.bytes {
            return Ok(bytes::decode(&self.inner, &ids, |_| false));
        }
        self.inner.decode(&ids, false).map_err(encoding)
    }

    fn is_special(&self, id: u32) -> bool {
        let own = i32::try_from(id).is_ok_and(|id| [self.pad, self.eos, self.unk].contains(&id));
        let added = self.inner.get_added_vocabulary().simple_id_to_token(id);
        own || added.is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// The padding token.
    pub fn pad_id(&self) -> i32 {
        self.pad
    }

    /// The token that ends a text.
    pub fn eos_id(&self) -> i32 {
        self.eos
    }

    /// The token for text that is not in the vocabulary.
    pub fn unk_id(&self) -> i32 {
        self.unk
    }

    /// Id of `<extra_id_{index}>`.
    pub fn sentinel(&self, index: usize) -> Option<i32> {
        self.sentinels.get(index).copied()
    }

    /// All sentinels, `<extra_id_0>` first.
    pub fn sentinels(&self) -> &[i32] {
        &self.sentinels
    }

    /// Whether an id stands for padding, EOS or a sentinel, which have special meanings in a model's targets.
    pub fn is_control(&self, id: i32) -> bool {
        self.control.binary_search(&id).is_ok()
    }

    /// The highest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Rows of a model's embedding: [`Self::vocab_size`] rounded up to a multiple of 128, which is 32,128 for
    /// T5.
    pub fn model_vocab_size(&self) -> usize {
        self.vocab_size.next_multiple_of(128)
    }

    /// SHA-256 of the tokens in order of their ids, in hexadecimal. Models can be fused or trained further
    /// only with the same fingerprint.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Writes `tokenizer.json`, and the other files that transformers' `AutoTokenizer` requires, into
    /// `folder`, creating it if necessary. Of ByT5's vocabulary there is only the latter.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder)
            .map_err(|source| TextError::CreateFolder { path: folder.to_owned(), source })?;
        if self.special.bytes {
            return self.save_bytes(folder);
        }
        let tokenizer = self.inner.to_string(true).map_err(encoding)?;
        let sentinels: Vec<_> = (0..self.sentinels.len()).map(sentinel_name).collect();
        let Special { eos, unk, pad, .. } = &self.special;
        let special = json!({
            "eos_token": eos, "unk_token": unk, "pad_token": pad, "additional_special_tokens": sentinels,
        });
        let mut config = special.clone();
        config["tokenizer_class"] = "PreTrainedTokenizerFast".into();
        config["clean_up_tokenization_spaces"] = self.special.clean_up.into();
        if self.special.split {
            config["split_special_tokens"] = true.into();
        }
        // Of this class, transformers 4 returns `token_type_ids` as well, which its T5 refuses.
        config["model_input_names"] = json!(["input_ids", "attention_mask"]);
        for (name, content) in [
            ("tokenizer.json", tokenizer),
            ("tokenizer_config.json", format!("{config:#}")),
            ("special_tokens_map.json", format!("{special:#}")),
        ] {
            write_file_atomically(&folder.join(name), format!("{content}\n").as_bytes())?;
        }
        Ok(())
    }
}

impl Tokenizer {
    /// Writes the files that transformers' `ByT5Tokenizer` writes, which name each token that is no byte.
    fn save_bytes(&self, folder: &Path) -> Result<()> {
        let added: BTreeMap<u32, AddedToken> = self.inner.get_added_tokens_decoder().into_iter().collect();
        let Special { eos, unk, pad, split, clean_up, .. } = &self.special;
        let others =
            added.values().filter(|token| token.special && ![eos, unk, pad].contains(&&token.content));
        let others: Vec<&str> = others.map(|token| token.content.as_str()).collect();
        let special = json!({
            "eos_token": eos, "unk_token": unk, "pad_token": pad, "additional_special_tokens": others,
        });
        let mut config = special.clone();
        config["added_tokens_decoder"] = json!(added);
        config["clean_up_tokenization_spaces"] = (*clean_up).into();
        // They are among the tokens.
        config["extra_ids"] = 0.into();
        config["tokenizer_class"] = bytes::CLASS.into();
        if *split {
            config["split_special_tokens"] = true.into();
        }
        for (name, content) in [("tokenizer_config.json", config), ("special_tokens_map.json", special)] {
            write_file_atomically(&folder.join(name), format!("{content:#}\n").as_bytes())?;
        }
        Ok(())
    }
}

/// What transformers calls cleaning up.
fn without_spaces_before_punctuation(mut text: String) -> String {
    for mark in [".", "?", "!", ","] {
        text = text.replace(&format!(" {mark}"), mark);
    }
    text = text.replace(" ' ", "'");
    for suffix in ["n't", "'m", "'s", "'ve", "'re"] {
        text = text.replace(&format!(" {suffix}"), suffix);
    }
    text
}

fn fingerprint(vocabulary: &BTreeMap<u32, String>) -> String {
    let mut digest = Sha256::new();
    for (id, token) in vocabulary {
        digest.update(id.to_le_bytes());
        digest.update((token.len() as u64).to_le_bytes());
        digest.update(token);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Loading the vocabulary has checked that the ids fit.
fn ids(ids: &[u32]) -> Vec<i32> {
    ids.iter().map(|&id| id as i32).collect()
}

fn encoding(error: tokenizers::Error) -> TextError {
    TextError::Encode { reason: error.to_string() }
}
