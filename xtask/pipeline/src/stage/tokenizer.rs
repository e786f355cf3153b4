//! Trains a vocabulary.

use std::num::NonZeroU64;
use std::sync::Arc;

use anyhow::Result;
use fusion_core::atomic::write_directory_atomically;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use t5_model::text::{Corpus, HoldOut, Split, Tokenizer};

use super::{Context, Forecast, Gives, Input, Keys, Kind, Known, Shown, Vocabulary, Work};
use crate::Note;
use crate::source::corpus;

/// A Unigram vocabulary in the style of T5's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainTokenizer {
    /// Files, folders, globs, or `builtin:…`.
    pub text: Vec<String>,
    /// Every k-th document is reserved for evaluation.
    pub held_out_every: Option<NonZeroU64>,
    /// The number of tokens, including special ones and sentinels.
    pub vocabulary: usize,
    /// The number of tokens that stand for masked spans.
    pub sentinels: usize,
    /// The maximum number of documents to read.
    pub max_documents: Option<u64>,
}

/// `tokenizer`, which gives a tokenizer.
pub const KIND: Kind = Kind {
    name: "tokenizer",
    gives: Some(Gives::Tokenizer),
    output: "tokenizer",
    table: None,
    read,
    show: Shown::parameters,
    arm: None,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnKeys {
    vocabulary: usize,
    #[serde(default = "t5_sentinels")]
    sentinels: usize,
    #[serde(default)]
    max_documents: Option<u64>,
}

fn t5_sentinels() -> usize {
    100
}

fn read(keys: &mut Keys<'_>) -> Result<Arc<dyn Work>> {
    let data = keys.data()?;
    let OwnKeys { vocabulary, sentinels, max_documents } = keys.rest()?;
    let text = keys.text(&data)?;
    let data = data.into_inner();
    Ok(Arc::new(TrainTokenizer {
        text,
        held_out_every: data.held_out_every,
        vocabulary,
        sentinels,
        max_documents: max_documents.or(data.max_documents),
    }))
}

impl Work for TrainTokenizer {
    fn inputs(&self) -> Vec<&Input> {
        Vec::new()
    }

    fn forecast(&self, _: &Known<'_>) -> Result<Forecast> {
        let (size, sentinels) = (self.vocabulary.next_multiple_of(128), self.sentinels);
        Ok(Forecast { vocabulary: Some(Vocabulary { size, sentinels }), ..Forecast::default() })
    }

    fn run(&self, context: &Context<'_>) -> Result<Value> {
        self.train(context)
    }
}

impl TrainTokenizer {
    /// Writes the tokenizer's files.
    fn train(&self, context: &Context<'_>) -> Result<Value> {
        let output = context.output;
        let corpus = corpus::open(&self.text)?;
        corpus::left_out([&corpus]).iter().for_each(|warning| context.note(&Note::Warning(warning)));
        let texts = self.documents(&corpus)?;
        let tokenizer = Tokenizer::train_unigram(&texts, self.vocabulary, self.sentinels)?;
        write_directory_atomically::<anyhow::Error>(output, |directory| Ok(tokenizer.save(directory)?))?;
        let characters: usize = texts.iter().map(|text| text.chars().count()).sum();
        Ok(json!({
            "documents": texts.len(), "characters": characters, "vocabulary": tokenizer.vocab_size(),
            "fingerprint": tokenizer.fingerprint(),
        }))
    }

    fn documents(&self, corpus: &Corpus) -> Result<Vec<String>> {
        let limit = self.max_documents.unwrap_or(u64::MAX);
        let mut texts = Vec::new();
        for file in 0..corpus.file_count() {
            let Some(documents) = corpus.documents(file, 0)? else { break };
            for (index, document) in (0..).zip(documents) {
                let document = document?;
                let every = self.held_out_every;
                let training =
                    every.is_none_or(|every| HoldOut { every, split: Split::Train }.contains(file, index));
                if texts.len() as u64 >= limit {
                    return Ok(texts);
                }
                if training {
                    texts.push(document);
                }
            }
        }
        Ok(texts)
    }
}
