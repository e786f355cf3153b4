//! Reads stages' keys from a recipe. Errors carry file, line and column.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;

use anyhow::{Error, Result};
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use t5_model::ComputeChoice;
use t5_model::text::{Objective, TEXT_FIELD};
use toml::Spanned;
use toml::de::DeValue;

use super::text::{Data, HeldOut};
use super::{Dimensions, Gives, Input, SeedSet};
use crate::checkpoint::BYTES;
use crate::located::{Table, Texts, Value, merge};
use crate::problems::causes;
use crate::recipe::schema::keys_of;
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
    /// `[compute]`.
    pub compute: ComputeChoice,
    /// The names of all stages.
    pub stages: Vec<String>,
}

/// One of several sets of seeds.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// See [`SeedSet`].
    pub number: u64,
    /// The stages that are in each set, by their names in the recipe.
    pub stages: &'a BTreeSet<String>,
}

/// A stage's name where another takes something from it, and what it takes.
pub type Taken = (Spanned<String>, Gives);

/// A stage's keys, on top of those shared by its kind. Keys that are not taken individually make up
/// [`Keys::rest`].
pub struct Keys<'a> {
    shared: &'a Shared<'a>,
    /// The stage's location.
    span: Range<usize>,
    table: Table,
    inputs: Vec<Taken>,
    references: Vec<Spanned<String>>,
    /// The set that the stage is in.
    set: Option<&'a Set<'a>>,
}

/// `[data]`, or a stage's own `data`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataTable {
    /// The text to train on: files, folders, globs (`.json`, `.jsonl`, `.txt`, `.csv` or `.tsv`, also as `.gz` or
    /// `.zst`; `.parquet`; `.tokens`), `hf:ORG/DATASET`, `s3://…`, `gs://…`, `https://…`, or `builtin:webster`.
    #[schemars(with = "Option<Several>")]
    text: Option<Spanned<Several>>,
    /// The field of JSON, or column of a table, that holds the text; held-out text has the same.
    pub text_field: String,
    /// The text to evaluate on, if it is a text of its own.
    #[schemars(with = "Option<Several>")]
    held_out_text: Option<Spanned<Several>>,
    /// Hold out every k-th document of the text for evaluation.
    pub held_out_every: Option<NonZeroU64>,
    /// A stage that trains one, a tokenizer.json, spiece.model or folder, or `bytes` for ByT5's vocabulary.
    #[schemars(with = "Option<String>")]
    tokenizer: Option<Spanned<String>>,
    /// Tokens per input.
    input_length: usize,
    /// What models learn to do with text, in training and in evaluations.
    objective: Objective,
    /// Train on at most this many documents.
    pub max_documents: Option<u64>,
}

impl Default for DataTable {
    fn default() -> Self {
        DataTable {
            text: None,
            text_field: TEXT_FIELD.to_owned(),
            held_out_text: None,
            held_out_every: None,
            tokenizer: None,
            input_length: T5_INPUT_LENGTH,
            objective: Objective::T5,
            max_documents: None,
        }
    }
}

const T5_INPUT_LENGTH: usize = 512;

/// One text or several. Each of several may come from another variable, and so from another place.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Several {
    One(String),
    All(#[schemars(with = "Vec<String>")] Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Several {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Several;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Several, E> {
                Ok(Several::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Several, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(Several::All(texts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

impl<'a> Keys<'a> {
    /// The keys of the stage at `span`, of which none has been taken yet.
    pub fn new(shared: &'a Shared<'a>, span: Range<usize>, table: Table, set: Option<&'a Set<'a>>) -> Self {
        Keys { shared, span, table, inputs: Vec::new(), references: Vec::new(), set }
    }

    /// The stage of this set that is meant by a name in the recipe.
    fn in_set(&self, name: Spanned<String>) -> Spanned<String> {
        let set = self.set.filter(|set| set.stages.contains(name.get_ref()));
        let own = set.map(|set| SeedSet::name(name.get_ref(), set.number));
        own.map_or_else(|| name.clone(), |own| Spanned::new(name.span(), own))
    }

    /// The stages among the inputs read so far, and the stages that are only referred to.
    pub fn into_stages(self) -> (Vec<Taken>, Vec<Spanned<String>>) {
        (self.inputs, self.references)
    }

    /// An error about the stage as a whole.
    pub fn error(&self, message: impl fmt::Display) -> Error {
        self.error_at(self.span.clone(), message)
    }

    /// An error about the part of the recipe at `span`.
    pub fn error_at(&self, span: Range<usize>, message: impl fmt::Display) -> Error {
        self.shared.texts.error(span, message)
    }

    /// Whether a key is there that has not been taken.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// One key.
    pub fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        self.shared.texts.take(&mut self.table, key)
    }

    /// The keys that make up a type.
    pub fn own<T: DeserializeOwned + JsonSchema>(&mut self) -> Result<T> {
        let entries = keys_of::<T>().into_iter().filter_map(|key| self.table.remove_entry(key.as_str()));
        let table = entries.collect();
        self.shared.texts.read(Spanned::new(self.span.clone(), DeValue::Table(table)))
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

    /// A stage, a model on the Hugging Face Hub, a vocabulary of bytes, or else a path relative to the file that names
    /// it.
    pub fn input(&mut self, name: Spanned<String>, wanted: Gives) -> Result<Input> {
        let Shared { texts, stages, .. } = self.shared;
        if let Some(input) = self.stage(&name)? {
            let stage = input.stage().unwrap_or_default().to_owned();
            let wanted = if input.step().is_some() { Gives::Step } else { wanted };
            self.inputs.push((Spanned::new(name.span(), stage), wanted));
            return Ok(input);
        }
        if wanted == Gives::Tokenizer && name.get_ref() == BYTES {
            return Ok(Input::Bytes);
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

    /// The stage of that name, or a step of its training: `trunk@1000`.
    fn stage(&self, name: &Spanned<String>) -> Result<Option<Input>> {
        let (stage, step) = Input::parts(name.get_ref());
        if !self.shared.stages.iter().any(|known| known == stage) {
            return Ok(None);
        }
        let stage = self.in_set(Spanned::new(name.span(), stage.to_owned())).into_inner();
        let Some(step) = step else { return Ok(Some(Input::Stage(stage))) };
        let step = step.replace('_', "").parse().map_err(|_| {
            let message = format!("after the @ of {:?} stands a step, such as {stage}@1000", name.get_ref());
            self.error_at(name.span(), message)
        })?;
        Ok(Some(Input::Step { stage, step }))
    }

    /// A stage of which something is to be known before this one, but whose result this one does not take.
    pub fn reference(&mut self, name: Spanned<String>) -> Result<Input> {
        let Some(input) = self.stage(&name)? else {
            let known = self.shared.stages.join(", ");
            let message = format!("there is no stage {:?}; the stages are: {known}", name.get_ref());
            return Err(self.error_at(name.span(), message));
        };
        self.references.push(Spanned::new(name.span(), input.stage().unwrap_or_default().to_owned()));
        Ok(input)
    }

    /// The stage's own `data`.
    pub fn take_data(&mut self) -> Option<Value> {
        self.table.remove("data")
    }

    /// `[data]`, overridden by the stage's own `data`.
    pub fn data(&mut self) -> Result<Spanned<DataTable>> {
        let own = self.take_data();
        self.data_with(own)
    }

    /// `[data]`, overridden by `own`.
    pub fn data_with(&self, own: Option<Value>) -> Result<Spanned<DataTable>> {
        let Shared { texts, data: shared, .. } = self.shared;
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
        let objective_at = data.get("objective").map_or(at.clone(), Spanned::span);
        let table: DataTable = texts.read(Spanned::new(at.clone(), DeValue::Table(data)))?;
        table.objective.check().map_err(|error| texts.error(objective_at, error))?;
        Ok(Spanned::new(at, table))
    }

    /// The text of `[data]`.
    pub fn text(&self, data: &Spanned<DataTable>) -> Result<Vec<String>> {
        match &data.get_ref().text {
            Some(text) => self.absolute(text),
            None => Err(self.error_at(data.span(), "`[data]` names no `text`")),
        }
    }

    /// All of `[data]`, including a tokenizer and held-out text.
    pub fn tokenized(&mut self, data: Spanned<DataTable>) -> Result<Data> {
        let text = self.text(&data)?;
        let held_out = match (&data.get_ref().held_out_text, data.get_ref().held_out_every) {
            (Some(held_out), None) => HeldOut::Text(self.absolute(held_out)?),
            (None, Some(every)) => HeldOut::Every(every),
            _ => {
                let message = "`[data]` says what models are evaluated on, either by `held_out_text` or by \
                               `held_out_every` (every k-th document)";
                return Err(self.error_at(data.span(), message));
            }
        };
        let at = data.span();
        let data = data.into_inner();
        let Some(tokenizer) = data.tokenizer else {
            return Err(self.error_at(at, "`[data]` names no `tokenizer`: a stage, a path or `bytes`"));
        };
        let tokenizer = self.input(tokenizer, Gives::Tokenizer)?;
        let DataTable { text_field, input_length, objective, max_documents, .. } = data;
        Ok(Data { text, text_field, held_out, tokenizer, input_length, objective, max_documents })
    }

    /// Texts as absolute paths; relative ones start from the file that names them.
    fn absolute(&self, texts: &Spanned<Several>) -> Result<Vec<String>> {
        let absolute = |span: Range<usize>, text: &String| {
            let directory = self.shared.texts.directory(span.clone());
            let absolute = corpus::absolute(directory, std::slice::from_ref(text));
            absolute.map_err(|error| self.error_at(span, causes(&error)))
        };
        match texts.get_ref() {
            Several::One(text) => absolute(texts.span(), text),
            Several::All(texts) => {
                let each = texts.iter().map(|text| absolute(text.span(), text.get_ref()));
                Ok(each.collect::<Result<Vec<_>>>()?.concat())
            }
        }
    }
}
