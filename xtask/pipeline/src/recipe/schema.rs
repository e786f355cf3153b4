//! The keys of a recipe, and what they mean.
//!
//! `[data]` is every stage's text, `[pretraining]` and `[fine_tuning]` are the settings of all stages of that kind; a
//! stage's own keys come on top. `[models.NAME]` are dimensions, `[stages.NAME]` the stages, `[comparison]` the report's.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Result;
use glue_eval::Task;
use serde::de::DeserializeOwned;
use t5_model::method::MethodSettings;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::merge::{Table, Value, merge};
use super::source::Sources;
use super::tables::{DataTable, EvaluateTable, Texts, TokenizerTable};
use super::{Comparison, graph};
use crate::problems::causes;
use crate::source::corpus;
use crate::source::hub::HubName;
use crate::stage::evaluate::Evaluate;
use crate::stage::fuse::{Calibrate, Fuse};
use crate::stage::glue::Glue;
use crate::stage::pretrain::{Dimensions, Pretrain, Start};
use crate::stage::text::{Data, HeldOut};
use crate::stage::tokenizer::TrainTokenizer;
use crate::stage::{Source, Stage, Work};

/// A stage, and where it and the names of its inputs stand.
pub struct Located {
    pub stage: Stage,
    pub span: Range<usize>,
    pub inputs: Vec<Spanned<String>>,
}

const TABLES: &str = "`data`, `models`, `pretraining`, `fine_tuning`, `stages`, `comparison`";

/// The tables that stages share.
struct Shared<'a> {
    sources: &'a Sources,
    data: Option<Value>,
    models: BTreeMap<String, Dimensions>,
    pretraining: Table,
    fine_tuning: Table,
    /// The names of all stages.
    stages: Vec<String>,
}

/// Checks a merged recipe and puts its stages in order.
pub fn resolve(mut table: Table, sources: &Sources) -> Result<(Vec<Stage>, Option<Comparison>)> {
    let stages = take_table(&mut table, "stages", sources)?;
    let data = table.remove("data");
    let pretraining = take_table(&mut table, "pretraining", sources)?;
    let fine_tuning = take_table(&mut table, "fine_tuning", sources)?;
    let models = table.remove("models").map_or(Ok(BTreeMap::new()), |value| read(value, sources))?;
    let comparison: Option<Spanned<Comparison>> =
        table.remove("comparison").map(|value| read(value, sources)).transpose()?;
    if let Some((key, _)) = table.iter().next() {
        let message = format!("unknown table `{}`, expected one of {TABLES}", key.get_ref());
        return Err(sources.error(key.span(), message));
    }
    let names = stages.keys().map(|name| name.get_ref().to_string()).collect();
    let shared = Shared { sources, data, models, pretraining, fine_tuning, stages: names };
    let mut located = Vec::with_capacity(stages.len());
    for (name, value) in stages {
        let stage = shared.stage(&name, value)?;
        located.push(stage);
    }
    let stages = graph::in_order(located, comparison.as_ref(), sources)?;
    Ok((stages, comparison.map(Spanned::into_inner)))
}

impl Shared<'_> {
    fn stage(&self, name: &Spanned<std::borrow::Cow<'static, str>>, value: Value) -> Result<Located> {
        let (span, name) = (name.span(), name.get_ref().to_string());
        let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.starts_with('.') || !name.chars().all(usual) {
            let message = format!("stage {name:?} names a directory: letters, digits, '-', '_' and '.' only");
            return Err(self.sources.error(span, message));
        }
        let mut table = self.table(value, &format!("stages.{name}"))?;
        let Some(kind) = table.remove("kind") else {
            return Err(self.sources.error(span, format!("stage {name:?} has no `kind`")));
        };
        let mut inputs = Vec::new();
        let work = match kind.get_ref().as_str() {
            Some("tokenizer") => self.tokenizer(span.clone(), table)?,
            Some("pretrain") => self.pretrain(span.clone(), table, &mut inputs)?,
            Some("fuse") => self.fuse(span.clone(), table, &mut inputs)?,
            Some("glue") => self.glue(span.clone(), table, &mut inputs)?,
            Some("evaluate") => self.evaluate(span.clone(), table, &mut inputs)?,
            _ => {
                let message =
                    "`kind` is one of \"tokenizer\", \"pretrain\", \"fuse\", \"glue\", \"evaluate\"";
                return Err(self.sources.error(kind.span(), message));
            }
        };
        Ok(Located { stage: Stage { name, work }, span, inputs })
    }

    fn tokenizer(&self, span: Range<usize>, mut table: Table) -> Result<Work> {
        let data = self.data(&span, &mut table)?;
        let settings: TokenizerTable = self.rest(span, table)?;
        Ok(Work::Tokenizer(TrainTokenizer {
            text: self.texts(&data, |data| &data.text)?,
            held_out_every: data.get_ref().held_out_every,
            vocabulary: settings.vocabulary,
            sentinels: settings.sentinels,
            max_documents: settings.max_documents.or(data.get_ref().max_documents),
        }))
    }

    fn pretrain(&self, span: Range<usize>, own: Table, inputs: &mut Vec<Spanned<String>>) -> Result<Work> {
        let mut table = self.pretraining.clone();
        merge(&mut table, own);
        let data = self.data(&span, &mut table)?;
        let model: Option<Spanned<String>> = self.take(&mut table, "model")?;
        let from: Option<Spanned<String>> = self.take(&mut table, "from")?;
        let start = match (model, from) {
            (Some(model), None) => match self.models.get(model.get_ref()) {
                Some(dimensions) => Start::Random(dimensions.clone()),
                None => {
                    let known: Vec<&str> = self.models.keys().map(String::as_str).collect();
                    let message = format!("no model {:?}; there are: {}", model.get_ref(), known.join(", "));
                    return Err(self.sources.error(model.span(), message));
                }
            },
            (None, Some(from)) => Start::Model(self.source(from, inputs)?),
            _ => {
                let message =
                    "a pretraining has either a `model` with random weights or a model to start `from`";
                return Err(self.sources.error(span, message));
            }
        };
        let data = self.tokenized(&span, data, inputs)?;
        let settings: t5_model::train::Settings = self.rest(span.clone(), table)?;
        settings.validate().map_err(|error| self.sources.error(span.clone(), error))?;
        if settings.carry_optimizer && matches!(start, Start::Random(_)) {
            let message =
                "`carry_optimizer` needs a model to start `from`; random weights have no optimiser's state";
            return Err(self.sources.error(span, message));
        }
        Ok(Work::Pretrain(Box::new(Pretrain { start, data, settings })))
    }

    fn fuse(&self, span: Range<usize>, mut table: Table, inputs: &mut Vec<Spanned<String>>) -> Result<Work> {
        let parents: Option<Vec<Spanned<String>>> = self.take(&mut table, "parents")?;
        let parents = parents.unwrap_or_default();
        if parents.is_empty() {
            return Err(self.sources.error(span, "a fusion has a list of `parents`"));
        }
        let parents: Vec<Source> =
            parents.into_iter().map(|parent| self.source(parent, inputs)).collect::<Result<_>>()?;
        let examples: Option<usize> = self.take(&mut table, "calibrate_examples")?;
        let calibrate = match examples {
            None => None,
            Some(examples) => {
                let data = self.data(&span, &mut table)?;
                Some(Calibrate { data: self.tokenized(&span, data, inputs)?, examples })
            }
        };
        let settings: MethodSettings = self.rest(span.clone(), table)?;
        let calibration = calibrate.iter().try_for_each(|calibrate| calibrate.check(&settings));
        calibration.map_err(|error| self.sources.error(span.clone(), error))?;
        // Not when the stage's turn has come, perhaps hours later.
        settings.check(parents.len()).map_err(|error| self.sources.error(span, error))?;
        Ok(Work::Fuse(Fuse { parents, settings, calibrate }))
    }

    fn glue(&self, span: Range<usize>, own: Table, inputs: &mut Vec<Spanned<String>>) -> Result<Work> {
        let mut table = self.fine_tuning.clone();
        merge(&mut table, own);
        let model = self.model(&span, &mut table, inputs)?;
        let names: Option<Vec<Spanned<String>>> = self.take(&mut table, "tasks")?;
        let task = |name: Spanned<String>| {
            name.get_ref().parse::<Task>().map_err(|error| self.sources.error(name.span(), error))
        };
        let tasks = match names {
            Some(names) => names.into_iter().map(task).collect::<Result<_>>()?,
            None => Task::ALL.to_vec(),
        };
        let settings: glue_eval::FineTuneSettings = self.rest(span.clone(), table)?;
        settings.check().map_err(|error| self.sources.error(span, error))?;
        Ok(Work::Glue(Glue { model, tasks, settings }))
    }

    fn evaluate(
        &self,
        span: Range<usize>,
        mut table: Table,
        inputs: &mut Vec<Spanned<String>>,
    ) -> Result<Work> {
        let data = self.data(&span, &mut table)?;
        let data = self.tokenized(&span, data, inputs)?;
        let settings: EvaluateTable = self.rest(span, table)?;
        let model = self.source(settings.model, inputs)?;
        let (batch_size, batches) = (settings.batch_size, settings.batches);
        Ok(Work::Evaluate(Evaluate { model, data, batch_size, batches }))
    }

    fn model(
        &self,
        span: &Range<usize>,
        table: &mut Table,
        inputs: &mut Vec<Spanned<String>>,
    ) -> Result<Source> {
        match self.take(table, "model")? {
            Some(model) => self.source(model, inputs),
            None => Err(self.sources.error(span.clone(), "there is no `model`")),
        }
    }

    /// A stage, a model on the Hugging Face Hub, or else a path as seen from the file that names it.
    fn source(&self, name: Spanned<String>, inputs: &mut Vec<Spanned<String>>) -> Result<Source> {
        if self.stages.contains(name.get_ref()) {
            let source = Source::Stage(name.get_ref().clone());
            inputs.push(name);
            return Ok(source);
        }
        if let Some(model) = name.get_ref().strip_prefix(HubName::PREFIX) {
            let model = model.parse().map_err(|error: String| self.sources.error(name.span(), error))?;
            return Ok(Source::Hub(model));
        }
        let path = self.sources.directory(name.span()).join(name.get_ref());
        if path.exists() {
            return Ok(Source::Path(std::path::absolute(path)?));
        }
        let message = format!(
            "{:?} is neither a stage nor a path; the stages are: {}",
            name.get_ref(),
            self.stages.join(", ")
        );
        Err(self.sources.error(name.span(), message))
    }

    /// `[data]` with the stage's own `data` on top.
    fn data(&self, span: &Range<usize>, table: &mut Table) -> Result<Spanned<DataTable>> {
        let own = table.remove("data");
        let at = own.as_ref().or(self.data.as_ref()).map_or(span.clone(), Spanned::span);
        let mut data = match &self.data {
            Some(data) => self.table(data.clone(), "data")?,
            None => Table::new(),
        };
        if let Some(own) = own {
            merge(&mut data, self.table(own, "data")?);
        }
        if data.is_empty() {
            return Err(self.sources.error(at, "there is no `[data]` to say which text this stage reads"));
        }
        // Where relative paths start from: the file that has the text's last word.
        let place = data.get("text").map_or(at.clone(), Spanned::span);
        Ok(Spanned::new(place, self.rest(at, data)?))
    }

    fn tokenized(
        &self,
        span: &Range<usize>,
        data: Spanned<DataTable>,
        inputs: &mut Vec<Spanned<String>>,
    ) -> Result<Data> {
        let text = self.texts(&data, |data| &data.text)?;
        let held_out = match (&data.get_ref().held_out_text, data.get_ref().held_out_every) {
            (Some(held_out), None) => HeldOut::Text(self.texts(&data, |_| held_out)?),
            (None, Some(every)) => HeldOut::Every(every),
            _ => {
                let message = "`[data]` says what models are evaluated on, either by `held_out_text` or by \
                               `held_out_every` (every k-th document)";
                return Err(self.sources.error(data.span(), message));
            }
        };
        let data = data.into_inner();
        let Some(tokenizer) = data.tokenizer else {
            return Err(self.sources.error(span.clone(), "`[data]` names no `tokenizer`: a stage or a path"));
        };
        let tokenizer = self.source(tokenizer, inputs)?;
        let (input_length, max_documents) = (data.input_length, data.max_documents);
        Ok(Data { text, held_out, tokenizer, input_length, max_documents })
    }

    fn texts<'d>(
        &self,
        data: &'d Spanned<DataTable>,
        texts: impl FnOnce(&'d DataTable) -> &'d Texts,
    ) -> Result<Vec<String>> {
        let directory = self.sources.directory(data.span());
        let texts = match texts(data.get_ref()) {
            Texts::One(text) => std::slice::from_ref(text),
            Texts::Several(texts) => texts,
        };
        let absolute = |text: &String| corpus::absolute(directory, text);
        let located = texts.iter().map(absolute).collect::<Result<_>>();
        located.map_err(|error| self.sources.error(data.span(), causes(&error)))
    }

    fn table(&self, value: Value, name: &str) -> Result<Table> {
        as_table(value, name, self.sources)
    }

    fn take<T: DeserializeOwned>(&self, table: &mut Table, key: &str) -> Result<Option<T>> {
        table.remove(key).map(|value| read(value, self.sources)).transpose()
    }

    /// What is left of a table when some keys were taken out.
    fn rest<T: DeserializeOwned>(&self, span: Range<usize>, table: Table) -> Result<T> {
        read(Spanned::new(span, DeValue::Table(table)), self.sources)
    }
}

fn take_table(table: &mut Table, key: &str, sources: &Sources) -> Result<Table> {
    table.remove(key).map_or(Ok(Table::new()), |value| as_table(value, key, sources))
}

fn as_table(value: Value, name: &str, sources: &Sources) -> Result<Table> {
    let (span, kind) = (value.span(), value.get_ref().type_str());
    match value.into_inner() {
        DeValue::Table(table) => Ok(table),
        _ => Err(sources.error(span, format!("`{name}` must be a table, not {kind}"))),
    }
}

fn read<T: DeserializeOwned>(value: Value, sources: &Sources) -> Result<T> {
    T::deserialize(ValueDeserializer::from(value)).map_err(|error| sources.toml_error(&error))
}
