//! Reads SentencePiece models (`spiece.model`) as tokenizers of the `tokenizers` crate, in the same way as
//! transformers' T5 converter: the same normaliser, the same handling of spaces, and T5's sentinels after the
//! pieces.

use prost::Message;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{
    NormalizerWrapper, Precompiled, Replace, Sequence, Strip, replace::ReplacePattern,
};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// U+2581, which stands for a space.
const SPACE: char = '▁';

/// The relevant parts of `sentencepiece_model.proto`.
#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer_spec: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer_spec: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, tag = "1")]
    piece: String,
    #[prost(float, tag = "2")]
    score: f32,
    #[prost(int32, tag = "3", default = "1")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerSpec {
    #[prost(int32, tag = "3", default = "1")]
    model_type: i32,
    #[prost(bool, tag = "35")]
    byte_fallback: bool,
    #[prost(int32, tag = "40")]
    unk_id: i32,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", tag = "2")]
    precompiled_charsmap: Vec<u8>,
}

const UNIGRAM: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Parses a SentencePiece model, and adds sentinels; the error says what is wrong with it.
pub(super) fn parse(bytes: &[u8], sentinels: usize) -> Result<Tokenizer, String> {
    let model = ModelProto::decode(bytes).map_err(|error| format!("not a SentencePiece model: {error}"))?;
    let trainer = model.trainer_spec.unwrap_or_default();
    if trainer.model_type != UNIGRAM {
        return Err(format!("SentencePiece model type {}, expected unigram (1)", trainer.model_type));
    }
    if trainer.byte_fallback {
        return Err("the SentencePiece model falls back to bytes, which T5's does not".to_owned());
    }
    let normalizer = match model.normalizer_spec {
        Some(spec) if !spec.precompiled_charsmap.is_empty() => Some(precompiled(&spec.precompiled_charsmap)?),
        _ => None,
    };
    let unk =
        usize::try_from(trainer.unk_id).map_err(|_| format!("unknown token has id {}", trainer.unk_id))?;
    let (special, user): (Vec<_>, Vec<_>) = model
        .pieces
        .iter()
        .filter(|piece| [UNKNOWN, CONTROL, USER_DEFINED].contains(&piece.kind))
        .partition(|piece| piece.kind != USER_DEFINED);
    let names = |pieces: Vec<&Piece>| pieces.into_iter().map(|piece| piece.piece.clone()).collect::<Vec<_>>();
    let (special, user) = (names(special), names(user));
    let pieces = model.pieces.into_iter().map(|piece| (piece.piece, f64::from(piece.score))).collect();
    let mut tokenizer = assemble(pieces, unk, sentinels, normalizer.into_iter().collect(), special)?;
    tokenizer.add_tokens(
        &user.iter().map(|piece| AddedToken::from(piece, false).normalized(false)).collect::<Vec<_>>(),
    );
    Ok(tokenizer)
}

fn precompiled(charsmap: &[u8]) -> Result<NormalizerWrapper, String> {
    // The map begins with its trie's size: an impossible size must not cause an allocation.
    let size = charsmap.first_chunk().map_or(u32::MAX, |size| u32::from_le_bytes(*size));
    if size as usize > charsmap.len() {
        return Err("the SentencePiece model's normaliser is cut short".to_owned());
    }
    let precompiled = Precompiled::from(charsmap);
    Ok(precompiled.map_err(|error| format!("the SentencePiece model's normaliser: {error}"))?.into())
}

/// A tokenizer like T5's: `pieces` with their log probabilities, followed by `sentinels` in descending order,
/// and EOS after each text. `normalizers` run before spaces are handled; `special` tokens are matched
/// verbatim in the text.
pub(super) fn assemble(
    mut pieces: Vec<(String, f64)>,
    unk: usize,
    sentinels: usize,
    mut normalizers: Vec<NormalizerWrapper>,
    special: Vec<String>,
) -> Result<Tokenizer, String> {
    let failed = |error: tokenizers::Error| error.to_string();
    let sentinels: Vec<_> = (0..sentinels).rev().map(super::tokenizer::sentinel_name).collect();
    let special: Vec<_> = special.into_iter().chain(sentinels.iter().cloned()).collect();
    let eos = pieces.iter().position(|(piece, _)| piece == super::tokenizer::EOS);
    pieces.extend(sentinels.into_iter().map(|sentinel| (sentinel, 0.0)));
    normalizers.push(Strip::new(false, true).into());
    let runs = Replace::new(ReplacePattern::Regex(" {2,}".to_owned()), SPACE.to_string()).map_err(failed)?;
    normalizers.push(runs.into());

    let mut tokenizer = Tokenizer::new(Unigram::from(pieces, Some(unk), false).map_err(failed)?);
    let metaspace = Metaspace::new(SPACE, PrependScheme::Always, true);
    tokenizer
        .with_normalizer(Some(Sequence::new(normalizers)))
        .with_pre_tokenizer(Some(metaspace.clone()))
        .with_decoder(Some(metaspace));
    if let Some(eos) = eos {
        let template = ending(super::tokenizer::EOS, eos as u32)?;
        tokenizer.with_post_processor(Some(template));
    }
    let special: Vec<_> = special.iter().map(|token| AddedToken::from(token, true)).collect();
    tokenizer.add_special_tokens(&special);
    Ok(tokenizer)
}

/// Ends each text with a token.
pub(super) fn ending(token: &str, id: u32) -> Result<TemplateProcessing, String> {
    // By its name, a token might be taken for the template's syntax.
    const EOS: &str = super::tokenizer::EOS;
    let mut template = TemplateProcessing::builder();
    let special =
        tokenizers::processors::template::SpecialToken::new(EOS.to_owned(), vec![id], vec![token.to_owned()])
            .map_err(|error| error.to_string())?;
    template
        .try_single(format!("$A {EOS}"))
        .and_then(|template| template.try_pair(format!("$A {EOS} $B {EOS}")))
        .map_err(|error| error.to_string())?
        .special_tokens(vec![special])
        .build()
        .map_err(|error| error.to_string())
}
