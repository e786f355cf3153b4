//! The text that a stage trains and evaluates on.

use std::num::NonZeroU64;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use t5_model::text::{
    self, Corpus, DataPosition, HoldOut, SpanCorruption, SpanCorruptionStream, Split, StreamOptions,
    Tokenizer,
};

use super::Input;
use crate::source::corpus;
use crate::{Note, Watch};

/// Text with its tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Data {
    /// Files, folders, globs, or `builtin:…`.
    pub text: Vec<String>,
    /// The text to evaluate on.
    pub held_out: HeldOut,
    /// Used for the held-out text too.
    pub tokenizer: Input,
    /// Tokens per input; T5's 512 are made from 568 tokens of text, with targets of 114.
    pub input_length: usize,
    /// The maximum number of documents to train on.
    pub max_documents: Option<u64>,
}

/// The text models are evaluated on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldOut {
    /// Every k-th document of the text, excluded from training.
    Every(NonZeroU64),
    /// A separate text.
    Text(Vec<String>),
}

/// Text ready to be read.
pub struct OpenText {
    training: Corpus,
    evaluation: Corpus,
    every: Option<NonZeroU64>,
    max_documents: Option<u64>,
    tokenizer: Arc<Tokenizer>,
    spans: SpanCorruption,
}

impl Data {
    /// Text, as seen from the current directory, that is only evaluated on.
    pub fn to_evaluate(text: &[String], tokenizer: Input, input_length: usize) -> Result<Self> {
        let text = corpus::from_here(text)?;
        let held_out = HeldOut::Text(text.clone());
        Ok(Data { text, held_out, tokenizer, input_length, max_documents: None })
    }

    /// Finds the text's files, to be read with this tokenizer. Warns of files that are left out.
    pub fn open(&self, tokenizer: Tokenizer, watch: &dyn Watch) -> Result<OpenText> {
        let training = corpus::open(&self.text)?;
        let (evaluation, every) = match &self.held_out {
            HeldOut::Every(every) => (training.clone(), Some(*every)),
            HeldOut::Text(text) => (corpus::open(text)?, None),
        };
        let separate = Some(&evaluation).filter(|_| every.is_none());
        if let Some(warning) = corpus::left_out([&training].into_iter().chain(separate)) {
            watch.note("text", &Note::Warning(&warning));
        }
        let spans = SpanCorruption::t5(self.input_length, &tokenizer)?;
        let tokenizer = Arc::new(tokenizer);
        Ok(OpenText { training, evaluation, every, max_documents: self.max_documents, tokenizer, spans })
    }
}

impl OpenText {
    /// The tokenizer that turns this text into batches.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The names of the files.
    pub fn names(&self) -> (Vec<String>, Vec<String>) {
        (self.training.names(), self.evaluation.names())
    }

    /// An endless stream of training batches.
    pub fn training(
        &self,
        batch_size: usize,
        seed: u64,
        at: DataPosition,
    ) -> text::Result<SpanCorruptionStream> {
        let options = StreamOptions {
            hold_out: self.part(Split::Train),
            max_documents: self.max_documents,
            ..StreamOptions::training(batch_size, seed)
        };
        self.stream(&self.training, options, at)
    }

    /// The held-out batches, with the same order and corruption on every call.
    pub fn evaluation(&self, batch_size: usize) -> text::Result<SpanCorruptionStream> {
        let options =
            StreamOptions { hold_out: self.part(Split::HeldOut), ..StreamOptions::evaluation(batch_size) };
        self.stream(&self.evaluation, options, DataPosition::default())
    }

    fn part(&self, split: Split) -> Option<HoldOut> {
        self.every.map(|every| HoldOut { every, split })
    }

    fn stream(
        &self,
        corpus: &Corpus,
        options: StreamOptions,
        at: DataPosition,
    ) -> text::Result<SpanCorruptionStream> {
        SpanCorruptionStream::new(
            corpus.clone(),
            Arc::clone(&self.tokenizer),
            self.spans.clone(),
            options,
            at,
        )
    }
}
