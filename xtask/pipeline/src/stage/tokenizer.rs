//! Trains a vocabulary.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use fusion_core::atomic::write_directory_atomically;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use t5_model::text::{Corpus, HoldOut, Split, Tokenizer};

use super::text::{Purpose, Reading, is_usual};
use super::{
    Context, DataTable, Forecast, Gives, Input, Keys, Kind, Known, Shown, TokenizerId, Vocabulary, Work,
};
use crate::checkpoint::load_tokenizer;
use crate::recipe::schema::one;
use crate::source::corpus;
use crate::{Note, Watch};

/// A Unigram vocabulary in the style of T5's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainTokenizer {
    /// Files, folders, globs, datasets on the Hub, addresses, or `builtin:…`.
    pub text: Vec<String>,
    /// The field or column of JSON and tables that holds the text.
    #[serde(skip_serializing_if = "is_usual")]
    pub text_field: String,
    /// Every k-th document is reserved for evaluation.
    pub held_out_every: Option<NonZeroU64>,
    /// The number of tokens, including special ones and sentinels.
    pub vocabulary: usize,
    /// The number of tokens that stand for masked spans.
    pub sentinels: usize,
    /// The maximum number of documents to read.
    pub max_documents: Option<u64>,
}

/// A trained vocabulary, and what it was trained on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainedTokenizer {
    /// Documents read.
    pub documents: usize,
    /// Their characters.
    pub characters: usize,
    /// The number of tokens, which is smaller than asked for if the text does not yield enough.
    pub vocabulary: usize,
    /// Equal for equal vocabularies: see [`Tokenizer::fingerprint`].
    pub fingerprint: String,
}

/// `tokenizer`, which gives a tokenizer.
pub const KIND: Kind = Kind {
    name: "tokenizer",
    about: "Trains a vocabulary.",
    gives: Some(Gives::Tokenizer),
    output: "tokenizer",
    table: None,
    keys: one::<OwnKeys>,
    computes: false,
    together: false,
    read,
    show: Shown::parameters,
    arm: None,
};

/// The number of sentinels that T5's own vocabulary has.
pub const T5_SENTINELS: usize = 100;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OwnKeys {
    /// The number of tokens, including special ones and sentinels; always needed.
    vocabulary: usize,
    /// The number of tokens that stand for masked spans.
    #[serde(default = "t5_sentinels")]
    sentinels: usize,
    /// Read at most this many documents [default: as in `data`].
    #[serde(default)]
    max_documents: Option<u64>,
    /// Overrides keys of `[data]`, of which `text`, `held_out_every` and `max_documents` matter here.
    #[serde(default)]
    #[schemars(with = "Option<DataTable>")]
    #[expect(dead_code, reason = "read with `[data]`")]
    data: Option<()>,
}

fn t5_sentinels() -> usize {
    T5_SENTINELS
}

fn read(keys: &mut Keys<'_>) -> Result<Arc<dyn Work>> {
    let data = keys.data()?;
    let OwnKeys { vocabulary, sentinels, max_documents, .. } = keys.rest()?;
    let text = keys.text(&data)?;
    let data = data.into_inner();
    Ok(Arc::new(TrainTokenizer {
        text,
        text_field: data.text_field,
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

    fn reads(&self) -> Vec<Reading<'_>> {
        let (every, purpose) = (self.held_out_every, Purpose::Vocabulary);
        vec![Reading { text: &self.text, field: &self.text_field, every, purpose }]
    }

    fn computes(&self) -> bool {
        false
    }

    fn forecast(&self, known: &Known<'_>) -> Result<Forecast> {
        let vocabulary = match &known.result {
            // A text may yield fewer tokens than asked for.
            Some(tokenizer) => Vocabulary::of(&load_tokenizer(tokenizer)?),
            None => {
                let (tokens, size) = (self.vocabulary, self.vocabulary.next_multiple_of(128));
                Vocabulary { tokens, size, sentinels: self.sentinels }
            }
        };
        let (stage, text) = (known.name.to_owned(), self.text.clone());
        let tokenizer = Some(TokenizerId::Trained { stage, text, vocabulary: self.vocabulary });
        Ok(Forecast { vocabulary: Some(vocabulary), tokenizer, ..Forecast::default() })
    }

    fn run(&self, context: &Context<'_>) -> Result<Value> {
        Ok(serde_json::to_value(self.train(context.output, context.watch)?)?)
    }
}

impl TrainTokenizer {
    /// Writes the tokenizer's files into `output`, all or none.
    ///
    /// # Errors
    /// If the text cannot be read, or the vocabulary is too small for its characters.
    pub fn train(&self, output: &Path, watch: &dyn Watch) -> Result<TrainedTokenizer> {
        let corpus = corpus::open(&self.text, &self.text_field)?;
        if let Some(warning) = corpus::left_out([&corpus]) {
            watch.note("text", &Note::Warning(&warning));
        }
        let texts = self.documents(&corpus)?;
        let tokenizer = Tokenizer::train_unigram(&texts, self.vocabulary, self.sentinels)?;
        write_directory_atomically::<anyhow::Error>(output, |directory| Ok(tokenizer.save(directory)?))?;
        Ok(TrainedTokenizer {
            documents: texts.len(),
            characters: texts.iter().map(|text| text.chars().count()).sum(),
            vocabulary: tokenizer.vocab_size(),
            fingerprint: tokenizer.fingerprint().to_owned(),
        })
    }

    fn documents(&self, corpus: &Corpus) -> Result<Vec<String>> {
        let limit = self.max_documents.unwrap_or(u64::MAX);
        let mut texts = Vec::new();
        for file in 0..corpus.file_count() {
            let Some(documents) = corpus.documents(file, 0)? else { break };
            for (index, document) in (0..).zip(documents) {
                let document = document?.into_text()?;
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
