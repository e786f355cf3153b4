//! Trains a small vocabulary in the style of T5's.

use std::collections::{BTreeMap, BTreeSet};

use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::normalizers::{NFKC, Nmt};
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::error::{Result, TextError};
use super::sentencepiece::assemble;
use super::tokenizer::{EOS, PAD, Tokenizer, UNK};

/// Longer words are ignored. (The trainer's time is quadratic in the length, and its likelihood overflows for
/// very long words.)
const MAX_WORD_CHARS: usize = 128;
/// The trainer counts in u32.
const MAX_WORDS: u64 = 1 << 30;
const MAX_PIECES: usize = 1 << 20;
/// The difference between consecutive scores that the trainer gives to characters it had dropped.
const SCORE_STEP: f64 = 0.0001;
/// Scores are kept to six decimals: every JSON parser reads those back to the last bit, so ties between
/// segmentations are broken the same way here and elsewhere.
const SCORE_SCALE: f64 = 1e6;

impl Tokenizer {
    /// Trains a unigram vocabulary of at most `vocab_size` tokens (fewer if the text does not yield enough
    /// pieces): `<pad>` 0, `</s>` 1, `<unk>` 2, the pieces, and `sentinels` sentinels with `<extra_id_0>`
    /// last. Text is normalised by NFKC and SentencePiece's rules for spaces and control characters, as in
    /// T5.
    ///
    /// The result depends only on the words and how often each occurs.
    ///
    /// # Errors
    /// If there is no text, or more than 2^30 words, or the vocabulary is too small for the text's
    /// characters.
    pub fn train_unigram(
        texts: impl IntoIterator<Item: AsRef<str>>,
        vocab_size: usize,
        sentinels: usize,
    ) -> Result<Self> {
        let specials = [PAD, EOS, UNK].map(str::to_owned);
        let normalizers = || vec![Nmt.into(), NFKC.into()];
        let untrained = vec![(UNK.to_owned(), 0.0)];
        let untrained = assemble(untrained, 0, 0, normalizers(), vec![]).map_err(training)?;
        let words = count_words(&untrained, texts)?;

        let characters: BTreeSet<char> = words.keys().flat_map(|word| word.chars()).collect();
        let special = specials.len().saturating_add(sentinels);
        let room = vocab_size.saturating_sub(special);
        if room <= characters.len() {
            let (requested, characters) = (vocab_size, characters.len());
            return Err(TextError::VocabularyTooSmall { requested, characters, special });
        }
        let mut pieces = train(words, room)?;
        settle_dropped_characters(&mut pieces);
        for (_, score) in &mut pieces {
            *score = (*score * SCORE_SCALE).round() / SCORE_SCALE;
        }
        pieces.sort_by(|(piece, score), (other, other_score)| {
            other_score.total_cmp(score).then_with(|| piece.cmp(other))
        });

        let vocabulary = specials.iter().map(|token| (token.clone(), 0.0)).chain(pieces).collect();
        let inner = assemble(vocabulary, 2, sentinels, normalizers(), specials.to_vec()).map_err(training)?;
        Self::new(inner, "the trained vocabulary")
    }
}

fn count_words(
    tokenizer: &tokenizers::Tokenizer,
    texts: impl IntoIterator<Item: AsRef<str>>,
) -> Result<BTreeMap<String, u32>> {
    let failed = |error: tokenizers::Error| training(error.to_string());
    let mut words = BTreeMap::new();
    let mut count = 0;
    for text in texts {
        let mut text = NormalizedString::from(text.as_ref());
        if let Some(normalizer) = tokenizer.get_normalizer() {
            normalizer.normalize(&mut text).map_err(failed)?;
        }
        let mut text = PreTokenizedString::from(text);
        if let Some(splitter) = tokenizer.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut text).map_err(failed)?;
        }
        for (word, _, _) in text.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            // The trainer reserves the null character and `<UNK>`.
            let usable = !word.is_empty() && !word.contains('\0') && !word.contains("<UNK>");
            if usable && word.chars().count() <= MAX_WORD_CHARS {
                count += 1;
                *words.entry(word.to_owned()).or_insert(0) += 1;
            }
        }
        if count > MAX_WORDS {
            return Err(training(format!("more than {MAX_WORDS} words; a sample of the text will do")));
        }
    }
    if words.is_empty() {
        return Err(training("the text has no words".to_owned()));
    }
    Ok(words)
}

/// Pieces with their log probabilities, `size` of them if there are enough.
fn train(words: BTreeMap<String, u32>, size: usize) -> Result<Vec<(String, f64)>> {
    if size > MAX_PIECES {
        return Err(training(format!("{size} pieces, more than {MAX_PIECES}")));
    }
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(size as u32)
        .build()
        .map_err(|error| training(error.to_string()))?;
    let mut model = Unigram::default();
    // The trainer adds floats thread by thread, so only a single thread gives a reproducible result.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.map_err(|error| training(error.to_string()))?;
    let trained = pool.install(|| trainer.do_train(words.into_iter().collect(), &mut model).map(|_| ()));
    trained.map_err(|error| training(error.to_string()))?;
    Ok(model.iter().cloned().collect())
}

/// The trainer gives characters it had dropped scores from the lowest up, in an order that varies from run to
/// run. This assigns the same scores in the order of the characters' codes.
fn settle_dropped_characters(pieces: &mut [(String, f64)]) {
    let lowest = pieces.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
    let mut characters: Vec<_> =
        pieces.iter_mut().filter(|(piece, _)| piece.chars().nth(1).is_none()).collect();
    characters.sort_by(|(_, score), (_, other)| score.total_cmp(other));
    let (mut penalty, mut dropped) = (0.0, 0);
    while let Some((_, score)) = characters.get(dropped)
        && *score <= lowest + penalty
    {
        // Summed as the trainer does, for equality to the last bit.
        if *score == lowest + penalty {
            penalty += SCORE_STEP;
        }
        dropped += 1;
    }
    characters.truncate(dropped);
    let scores: Vec<_> = characters.iter().map(|(_, score)| *score).collect();
    characters.sort_by(|(piece, _), (other, _)| piece.cmp(other));
    for ((_, score), settled) in characters.into_iter().zip(scores) {
        *score = settled;
    }
}

fn training(reason: String) -> TextError {
    TextError::Training { reason }
}
