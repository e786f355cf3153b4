//! The text that a stage trains and evaluates on.

use std::num::NonZeroU64;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use t5_model::Batch;
use t5_model::text::{
    self, Content, Corpus, DataPosition, Denoisers, ExampleLengths, ExampleStream, HoldOut, Objective, Split,
    StreamOptions, TEXT_FIELD, Tokenizer,
};

use super::Input;
use crate::source::corpus;
use crate::{Note, Watch};

/// Text with its tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Data {
    /// Files, folders, globs, datasets on the Hub, addresses, or `builtin:…`.
    pub text: Vec<String>,
    /// The field or column of JSON and tables that holds the text; held-out text has the same.
    #[serde(skip_serializing_if = "is_usual")]
    pub text_field: String,
    /// The text to evaluate on.
    pub held_out: HeldOut,
    /// Used for the held-out text too.
    pub tokenizer: Input,
    /// Tokens per input; T5's 512 are made from 568 tokens of text, with targets of 114.
    pub input_length: usize,
    /// How chunks of the text, and of the held-out text, become inputs and targets.
    #[serde(skip_serializing_if = "Objective::is_t5")]
    pub objective: Objective,
    /// The maximum number of documents to train on.
    pub max_documents: Option<u64>,
}

/// Nothing is recorded of the usual field: there were runs before there was any other.
pub(super) fn is_usual(field: &str) -> bool {
    field == TEXT_FIELD
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

/// A part of a text that a stage reads.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Files, folders, globs, datasets on the Hub, addresses, or `builtin:…`.
    pub text: &'a [String],
    /// The field or column that holds it.
    pub field: &'a str,
    /// Every k-th document is for evaluation.
    pub every: Option<NonZeroU64>,
    /// What the rest is for, or the documents that are held out.
    pub purpose: Purpose,
}

/// What a text is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To learn a vocabulary from.
    Vocabulary,
    /// To learn weights from.
    Training,
    /// To measure a model on.
    Evaluation,
}

impl Purpose {
    /// Which documents it takes, in words that complete "no document".
    pub fn part(self) -> &'static str {
        match self {
            Purpose::Vocabulary | Purpose::Training => "to train on",
            Purpose::Evaluation => "to evaluate on",
        }
    }
}

impl Reading<'_> {
    /// The documents that are read; all of them if `None`.
    pub fn hold_out(&self) -> Option<HoldOut> {
        let split = match self.purpose {
            Purpose::Vocabulary | Purpose::Training => Split::Train,
            Purpose::Evaluation => Split::HeldOut,
        };
        self.every.map(|every| HoldOut { every, split })
    }
}

/// Text ready to be read.
pub struct OpenText {
    training: Corpus,
    evaluation: Corpus,
    every: Option<NonZeroU64>,
    max_documents: Option<u64>,
    tokenizer: Arc<Tokenizer>,
    denoisers: Denoisers,
}

impl Data {
    /// Text, as seen from the current directory, that is only evaluated on.
    pub fn to_evaluate(
        text: &[String],
        text_field: &str,
        tokenizer: Input,
        input_length: usize,
        objective: Objective,
    ) -> Result<Self> {
        let text = corpus::from_here(text)?;
        let (held_out, text_field) = (HeldOut::Text(text.clone()), text_field.to_owned());
        Ok(Data { text, text_field, held_out, tokenizer, input_length, objective, max_documents: None })
    }

    /// Lengths of its examples with a vocabulary of this many sentinels.
    ///
    /// # Errors
    /// If the objective does not fit into inputs of this length.
    pub fn lengths(&self, sentinels: usize) -> text::Result<ExampleLengths> {
        Denoisers::lengths(&self.objective, self.input_length, sentinels)
    }

    /// The text that is trained on.
    pub fn trained(&self) -> Reading<'_> {
        let every = match self.held_out {
            HeldOut::Every(every) => Some(every),
            HeldOut::Text(_) => None,
        };
        Reading { text: &self.text, field: &self.text_field, every, purpose: Purpose::Training }
    }

    /// The text that is evaluated on.
    pub fn evaluated(&self) -> Reading<'_> {
        let (text, every) = match &self.held_out {
            HeldOut::Every(every) => (&self.text, Some(*every)),
            HeldOut::Text(text) => (text, None),
        };
        Reading { text, field: &self.text_field, every, purpose: Purpose::Evaluation }
    }

    /// Finds the text's files, to be read with this tokenizer. Warns of files that are left out.
    pub fn open(&self, tokenizer: Tokenizer, watch: &dyn Watch) -> Result<OpenText> {
        let training = corpus::open(&self.text, &self.text_field)?;
        let (evaluation, every) = match &self.held_out {
            HeldOut::Every(every) => (training.clone(), Some(*every)),
            HeldOut::Text(text) => (corpus::open(text, &self.text_field)?, None),
        };
        let separate = Some(&evaluation).filter(|_| every.is_none());
        if let Some(warning) = corpus::left_out([&training].into_iter().chain(separate)) {
            watch.note("text", &Note::Warning(&warning));
        }
        let denoisers = Denoisers::new(&self.objective, self.input_length, &tokenizer)?;
        let tokenizer = Arc::new(tokenizer);
        Ok(OpenText { training, evaluation, every, max_documents: self.max_documents, tokenizer, denoisers })
    }
}

impl OpenText {
    /// The tokenizer that turns this text into batches.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How its chunks become inputs and targets.
    pub fn denoisers(&self) -> &Denoisers {
        &self.denoisers
    }

    /// The names of the files.
    pub fn names(&self) -> (Vec<String>, Vec<String>) {
        (self.training.names(), self.evaluation.names())
    }

    /// Where the files' contents are, those that are trained on first.
    pub fn contents(&self) -> impl Iterator<Item = Content<'_>> {
        let separate = Some(&self.evaluation).filter(|_| self.every.is_none());
        self.training.contents().chain(separate.into_iter().flat_map(Corpus::contents))
    }

    /// An endless stream of training batches.
    pub fn training(&self, batch_size: usize, seed: u64, at: DataPosition) -> text::Result<ExampleStream> {
        let options = StreamOptions {
            hold_out: self.part(Split::Train),
            max_documents: self.max_documents,
            ..StreamOptions::training(batch_size, seed)
        };
        self.stream(&self.training, options, at)
    }

    /// The held-out batches, with the same order and corruption on every call.
    pub fn evaluation(&self) -> text::Result<ExampleStream> {
        self.evaluation_in_batches(StreamOptions::evaluation().batch_size)
    }

    /// The same examples in batches of another size.
    pub fn evaluation_in_batches(&self, batch_size: usize) -> text::Result<ExampleStream> {
        let hold_out = self.part(Split::HeldOut);
        let options = StreamOptions { batch_size, hold_out, ..StreamOptions::evaluation() };
        self.stream(&self.evaluation, options, DataPosition::default())
    }

    /// The first held-out examples, or as many as there are, in batches of `batch_size`.
    pub fn held_out(&self, examples: usize, batch_size: usize) -> text::Result<Vec<Batch>> {
        let batches = self.evaluation_in_batches(batch_size)?.take(examples.div_ceil(batch_size));
        let mut batches: Vec<Batch> = batches.map(|next| Ok(next?.batch)).collect::<text::Result<_>>()?;
        let surplus = (batches.len() * batch_size).saturating_sub(examples);
        if let Some(last) = batches.last_mut().filter(|last| last.size + surplus > batch_size) {
            *last = last.rows(0..batch_size - surplus);
        }
        Ok(batches)
    }

    fn part(&self, split: Split) -> Option<HoldOut> {
        self.every.map(|every| HoldOut { every, split })
    }

    fn stream(
        &self,
        corpus: &Corpus,
        options: StreamOptions,
        at: DataPosition,
    ) -> text::Result<ExampleStream> {
        ExampleStream::new(corpus.clone(), Arc::clone(&self.tokenizer), self.denoisers.clone(), options, at)
    }
}
