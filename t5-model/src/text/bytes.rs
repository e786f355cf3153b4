//! ByT5's vocabulary, which needs no training: the bytes of a text (Xue et al. 2022, arXiv 2105.13626).
//!
//! Ids are those of transformers' `ByT5Tokenizer`: padding, EOS and unknown are 0 to 2, a byte is its value plus 3,
//! and sentinels ascend from `<extra_id_0>` at 259. (ByT5 itself was pretrained with sentinels that descend from
//! the last id, so what transformers calls `<extra_id_0>` is not its first sentinel.)

use tokenizers::models::wordlevel::WordLevel;
use tokenizers::{NormalizerWrapper, OffsetReferential, OffsetType, Tokenizer};

use super::special::Special;

/// The class of transformers that has this vocabulary.
pub(super) const CLASS: &str = "ByT5Tokenizer";
/// ByT5's number of sentinels.
pub(super) const SENTINELS: usize = 125;
/// Padding, EOS and unknown come before the bytes.
const FIRST_BYTE: u32 = 3;

/// The vocabulary without what the special tokens' files add. A byte is named by the character of that number, as
/// in transformers.
pub(super) fn vocabulary(Special { pad, eos, unk, .. }: &Special) -> Result<Tokenizer, String> {
    let special = [pad, eos, unk].into_iter().cloned();
    let bytes = (0..=u8::MAX).map(|byte| char::from(byte).to_string());
    let vocabulary = special.chain(bytes).zip(0..).collect();
    let model = WordLevel::builder().vocab(vocabulary).unk_token(unk.clone()).build();
    model.map(Tokenizer::new).map_err(|error| error.to_string())
}

/// A text's special tokens and bytes.
pub(super) fn encode(vocabulary: &Tokenizer, text: &str) -> Vec<i32> {
    let added = vocabulary.get_added_vocabulary();
    let pieces = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
    let mut ids = Vec::with_capacity(text.len());
    for (piece, _, token) in pieces.get_splits(OffsetReferential::Original, OffsetType::Byte) {
        match token {
            Some(tokens) => ids.extend(tokens.iter().map(|token| token.id as i32)),
            None => ids.extend(piece.bytes().map(|byte| i32::from(byte) + FIRST_BYTE as i32)),
        }
    }
    ids
}

/// The text of some ids. Special tokens that are not to be skipped are shown by name; bytes that are no UTF-8, and ids
/// outside the vocabulary, are left out.
pub(super) fn decode(vocabulary: &Tokenizer, ids: &[u32], skip: impl Fn(u32) -> bool) -> String {
    let mut bytes = Vec::with_capacity(ids.len());
    for &id in ids.iter().filter(|id| !skip(**id)) {
        match id.checked_sub(FIRST_BYTE).map(u8::try_from) {
            Some(Ok(byte)) => bytes.push(byte),
            _ => bytes.extend(vocabulary.id_to_token(id).unwrap_or_default().into_bytes()),
        }
    }
    bytes.utf8_chunks().map(|chunk| chunk.valid()).collect()
}
