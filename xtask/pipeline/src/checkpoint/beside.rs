//! The files that lie beside a model's weights: which of them a model that is made from it gets.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use fusion_core::atomic::write_file_atomically;
use serde_json::{Map, Value};

use super::tokenizer::has_tokenizer;
use crate::Warning;
use crate::source::{FileKind, GENERATION_CONFIG};

/// What is made of the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The same model in another form.
    Same,
    /// The same, with a card that is written for it.
    Exported,
    /// Another model: their child, or one trained on.
    Another,
}

/// The files that go with a model, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beside {
    /// Their contents.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What is left behind, and what several models say differently.
    pub warnings: Vec<Warning>,
}

/// A file that goes with a model.
struct File<'a> {
    model: &'a str,
    name: String,
    content: Vec<u8>,
}

impl Beside {
    /// The files that go with what is made of `models`, each a name and a directory. The list of all kinds of
    /// files is [`FILES`](crate::source::FILES).
    pub fn of(models: &[(&str, &Path)], made: Made) -> Result<Self> {
        let mut beside = Beside::default();
        let (mut generation, mut legal) = (Vec::new(), Vec::new());
        let with_tokenizer = models.iter().position(|(_, directory)| has_tokenizer(directory));
        for (index, &(model, directory)) in models.iter().enumerate() {
            let mut left = Vec::new();
            for name in names(directory)? {
                let kind = FileKind::of(&name);
                let read = || {
                    let path = directory.join(&name);
                    let content =
                        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                    anyhow::Ok(File { model, name: name.clone(), content })
                };
                let is_file = directory.join(&name).is_file();
                match kind {
                    Some(FileKind::Made) => {}
                    _ if !is_file => left.push(format!("{name}/")),
                    Some(FileKind::Tokenizer) if with_tokenizer == Some(index) => beside.add(read()?),
                    Some(FileKind::Tokenizer) => {}
                    Some(FileKind::Generation) => generation.push(read()?),
                    Some(FileKind::Legal) => legal.push(read()?),
                    Some(FileKind::Plan) if made != Made::Another => beside.add(read()?),
                    Some(FileKind::Plan) => {}
                    Some(FileKind::Card) if made == Made::Same => beside.add(read()?),
                    Some(FileKind::Card) | None => left.push(name),
                }
            }
            if !left.is_empty() {
                let model = (models.len() > 1).then(|| model.to_owned());
                beside.warnings.push(Warning::LeftBehind { model, files: left });
            }
        }
        beside.merge_generation(generation)?;
        beside.gather_legal(legal);
        Ok(beside)
    }

    /// Leaves out the tokenizer, because another is given.
    pub fn without_tokenizer(mut self) -> Self {
        self.files.retain(|name, _| FileKind::of(name) != Some(FileKind::Tokenizer));
        self
    }

    /// The tokenizer alone.
    pub fn only_tokenizer(mut self) -> Self {
        self.files.retain(|name, _| FileKind::of(name) == Some(FileKind::Tokenizer));
        self
    }

    /// Writes them into a directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        for (name, content) in &self.files {
            write_file_atomically(&directory.join(name), content)?;
        }
        Ok(())
    }

    fn add(&mut self, file: File<'_>) {
        self.files.insert(file.name, file.content);
    }

    /// The settings of the first model that has any. Says in what those of others differ.
    fn merge_generation(&mut self, files: Vec<File<'_>>) -> Result<()> {
        let mut files = files.into_iter();
        let Some(first) = files.next() else { return Ok(()) };
        for other in files {
            let (own, others) = (settings(&first)?, settings(&other)?);
            let keys = own.keys().chain(others.keys().filter(|key| !own.contains_key(*key)));
            let differing = keys.filter(|key| own.get(*key) != others.get(*key));
            for key in differing
                .filter(|key| !["transformers_version", "_from_model_config"].contains(&key.as_str()))
            {
                let value = |settings: &Map<String, Value>| settings.get(key).cloned();
                self.warnings.push(Warning::GenerationDiffers {
                    key: key.clone(),
                    kept: (first.model.to_owned(), value(&own)),
                    left: (other.model.to_owned(), value(&others)),
                });
            }
        }
        self.add(first);
        Ok(())
    }

    /// All licences. One that differs from another of its name gets the name of its model, too.
    fn gather_legal(&mut self, files: Vec<File<'_>>) {
        for File { model, name, content } in files {
            if self.files.get(&name).is_some_and(|known| *known != content) {
                let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
                let model: String = model.chars().map(plain).collect();
                self.files.insert(format!("{name}.{}", model.trim_matches(['.', '-'])), content);
            } else {
                self.files.insert(name, content);
            }
        }
    }
}

fn settings(file: &File<'_>) -> Result<Map<String, Value>> {
    serde_json::from_slice(&file.content).with_context(|| format!("{GENERATION_CONFIG} of {}", file.model))
}

/// The names in a directory, sorted. Hidden ones belong to other programs.
fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("cannot read {}", directory.display()))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    Ok(names)
}
