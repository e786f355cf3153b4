//! Reads stages' keys from a recipe. Errors carry file, line and column.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;

use anyhow::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use t5_model::text::TEXT_FIELD;
use toml::Spanned;
use toml::de::DeValue;

use super::text::{Data, HeldOut};
use super::{Dimensions, Gives, Input};
use crate::located::{Table, Texts, Value, merge};
use crate::problems::causes;
use crate::source::hub::HubName;
use crate::source::{content, corpus};

/// What the stages of a recipe share.
pub struct Shared<'a> {
    /// The files that make up the recipe; errors point into them.
    pub texts: &'a Texts,
    /// `[data]`.
    pub data: Option<Value>,
    /// `[models.NAME]`.
    pub models: BTreeMap<String, Dimensions>,
    /// The names of all stages.
    pub stages: Vec<String>,
}

/// A stage's keys, on top of those shared by its kind. Keys that are not taken individually make up
/// [`Keys::rest`].
pub struct Keys<'a> {
    shared: &'a Shared<'a>,
    /// The stage's location.
    span: Range<usize>,
    table: Table,
    inputs: Vec<(Spanned<String>, Gives)>,
}

/// `[data]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataTable {
    text: Several,
    #[serde(default = "text_field")]
    pub text_field: String,
    #[serde(default)]
    held_out_text: Option<Several>,
    #[serde(default)]
    pub held_out_every: Option<NonZeroU64>,
    #[serde(default)]
    tokenizer: Option<Spanned<String>>,
    #[serde(default = "t5_input_length")]
    input_length: usize,
    #[serde(default)]
    pub max_documents: Option<u64>,
}

fn text_field() -> String {
    TEXT_FIELD.to_owned()
}

fn t5_input_length() -> usize {
    512
}

/// One text or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Several {
    One(String),
    All(Vec<String>),
}

impl<'a> Keys<'a> {
    /// The keys of the stage at `span`, of which none has been taken yet.
    pub fn new(shared: &'a Shared<'a>, span: Range<usize>, table: Table) -> Self {
        Keys { shared, span, table, inputs: Vec::new() }
    }

    /// The stages among the inputs read so far.
    pub fn into_inputs(self) -> Vec<(Spanned<String>, Gives)> {
        self.inputs
    }

    /// An error about the stage as a whole.
    pub fn error(&self, message: impl fmt::Display) -> Error {
        self.error_at(self.span.clone(), message)
    }

    /// An error about the part of the recipe at `span`.
    pub fn error_at(&self, span: Range<usize>, message: impl fmt::Display) -> Error {
        self.shared.texts.error(span, message)
    }

    /// Removes a key and reads its value; `None` if it is absent.
    pub fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        self.shared.texts.take(&mut self.table, key)
    }

    /// All keys that have not been taken.
    pub fn rest<T: DeserializeOwned>(&mut self) -> Result<T> {
        let table = std::mem::take(&mut self.table);
        self.shared.texts.read(Spanned::new(self.span.clone(), DeValue::Table(table)))
    }

    /// The dimensions of a model in `[models]`.
    pub fn dimensions(&self, model: &Spanned<String>) -> Result<Dimensions> {
        self.shared.models.get(model.get_ref()).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.shared.models.keys().map(String::as_str).collect();
            let message = format!("no model {:?}; there are: {}", model.get_ref(), known.join(", "));
            self.error_at(model.span(), message)
        })
    }

    /// The key `model`, which names a checkpoint.
    pub fn model(&mut self) -> Result<Input> {
        match self.take("model")? {
            Some(model) => self.input(model, Gives::Model),
            None => Err(self.error("there is no `model`")),
        }
    }

    /// A stage, a model on the Hugging Face Hub, or else a path relative to the file that names it.
    pub fn input(&mut self, name: Spanned<String>, wanted: Gives) -> Result<Input> {
        let Shared { texts, stages, .. } = self.shared;
        if stages.contains(name.get_ref()) {
            let input = Input::Stage(name.get_ref().clone());
            self.inputs.push((name, wanted));
            return Ok(input);
        }
        if let Some(model) = name.get_ref().strip_prefix(HubName::PREFIX) {
            let model = model.parse().map_err(|error: String| texts.error(name.span(), error))?;
            return Ok(Input::Hub(model));
        }
        let path = texts.directory(name.span()).join(name.get_ref());
        if path.exists() {
            content(&path).map_err(|error| texts.error(name.span(), causes(&error)))?;
            return Ok(Input::Path(std::path::absolute(path)?));
        }
        let known = stages.join(", ");
        let message = format!("{:?} is neither a stage nor a path; the stages are: {known}", name.get_ref());
        Err(texts.error(name.span(), message))
    }

    /// `[data]`, overridden by the stage's own `data`.
    pub fn data(&mut self) -> Result<Spanned<DataTable>> {
        let Shared { texts, data: shared, .. } = self.shared;
        let own = self.table.remove("data");
        let at = own.as_ref().or(shared.as_ref()).map_or(self.span.clone(), Spanned::span);
        let mut data = match shared {
            Some(data) => texts.table(data.clone(), "data")?,
            None => Table::new(),
        };
        if let Some(own) = own {
            merge(&mut data, texts.table(own, "data")?);
        }
        if data.is_empty() {
            return Err(texts.error(at, "there is no `[data]` to say which text this stage reads"));
        }
        // Relative paths start from the file that sets the text.
        let place = data.get("text").map_or(at.clone(), Spanned::span);
        Ok(Spanned::new(place, texts.read(Spanned::new(at, DeValue::Table(data)))?))
    }

    /// The text of `[data]`.
    pub fn text(&self, data: &Spanned<DataTable>) -> Result<Vec<String>> {
        self.absolute(data.span(), &data.get_ref().text)
    }

    /// All of `[data]`, including a tokenizer and held-out text.
    pub fn tokenized(&mut self, data: Spanned<DataTable>) -> Result<Data> {
        let text = self.text(&data)?;
        let held_out = match (&data.get_ref().held_out_text, data.get_ref().held_out_every) {
            (Some(held_out), None) => HeldOut::Text(self.absolute(data.span(), held_out)?),
            (None, Some(every)) => HeldOut::Every(every),
            _ => {
                let message = "`[data]` says what models are evaluated on, either by `held_out_text` or by \
                               `held_out_every` (every k-th document)";
                return Err(self.error_at(data.span(), message));
            }
        };
        let data = data.into_inner();
        let Some(tokenizer) = data.tokenizer else {
            return Err(self.error("`[data]` names no `tokenizer`: a stage or a path"));
        };
        let tokenizer = self.input(tokenizer, Gives::Tokenizer)?;
        let (text_field, input_length, max_documents) =
            (data.text_field, data.input_length, data.max_documents);
        Ok(Data { text, text_field, held_out, tokenizer, input_length, max_documents })
    }

    fn absolute(&self, span: Range<usize>, texts: &Several) -> Result<Vec<String>> {
        let directory = self.shared.texts.directory(span.clone());
        let texts = match texts {
            Several::One(text) => std::slice::from_ref(text),
            Several::All(texts) => texts,
        };
        corpus::absolute(directory, texts).map_err(|error| self.error_at(span, causes(&error)))
    }
}
