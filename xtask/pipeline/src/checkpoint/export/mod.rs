//! Exports checkpoints for users of transformers: a directory to load from or to upload.

mod card;
mod code;
mod history;
mod weights;

use std::path::Path;

use anyhow::Result;
use card::Card;
use fusion_core::Dtype;
use fusion_core::atomic::write_file_atomically;
use fusion_core::checkpoint::{Checkpoint, LazyTensor, Progress, Writer, common_type};
use fusion_core::lineage::Lineage;
use serde_json::{Map, Value, json};
use t5_model::T5Config;
use t5_model::keys::{GENERATION, Treatment};

use super::{
    Beside, Made, has_tokenizer, known_lineage, not_finite, parameter_count, tokenizer_of, write_directory,
};
use crate::source::GENERATION_CONFIG;
use crate::{Warning, Watch, write_json};

pub use code::MODELING_FILE;

/// What the weights do not say: settings for an export.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// The model's name, for its card.
    pub name: String,
    /// `None` keeps the tensors' own types.
    pub dtype: Option<Dtype>,
    /// In bytes.
    pub max_shard_size: u64,
    /// The license in the card, as the Hub spells it; `None` names none.
    pub license: Option<String>,
    /// The languages in the card, such as `en`; may be empty.
    pub languages: Vec<String>,
    /// The models on the Hub, `OWNER/NAME`, that the card says this one was made from.
    pub base_models: Vec<String>,
}

/// A checkpoint that has been checked and can be exported.
pub struct Export<'a> {
    checkpoint: &'a Checkpoint,
    /// As read; the exported configuration may treat the head differently.
    config: T5Config,
    /// Without this machine's paths; `None` if these weights have no lineage.
    lineage: Option<Lineage>,
    settings: ExportSettings,
    /// The files that go with it.
    beside: Beside,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

impl<'a> Export<'a> {
    /// Checks the weights' headers against the configuration, and their hash against the lineage's.
    pub fn new(checkpoint: &'a Checkpoint, settings: ExportSettings) -> Result<Self> {
        let config = T5Config::of_checkpoint(checkpoint)?;
        weights::check(checkpoint, &config)?;
        let mut warnings = Vec::new();
        let mut lineage = known_lineage(checkpoint, None, &mut warnings)?;
        lineage.iter_mut().for_each(history::hide_paths);
        let tensors = not_finite(checkpoint, &config)?;
        if !tensors.is_empty() {
            warnings.push(Warning::NotFinite { tensors });
        }
        let beside = Beside::of(&[("", checkpoint.directory())], Made::Exported)?;
        warnings.extend(beside.warnings.iter().cloned());
        Ok(Export { checkpoint, config, lineage, settings, beside, warnings })
    }

    /// Writes the whole directory or nothing.
    pub fn write(&self, output: &Path, watch: &dyn Watch) -> Result<()> {
        let what = format!("the model {}", self.settings.name);
        let tensors = weights::tensors(self.checkpoint, &self.config, self.settings.dtype)?;
        let size = tensors.iter().map(LazyTensor::size).sum::<usize>() as u64;
        write_directory(output, ("export", &what), size, watch, |directory, progress| {
            self.fill(directory, tensors, progress)
        })
    }

    fn fill(&self, directory: &Path, tensors: Vec<LazyTensor<'_>>, progress: &Progress<'_>) -> Result<()> {
        let config = weights::portable(&self.config);
        write_json(&directory.join("config.json"), &config_json(&config, common_type(&tensors)))?;
        let writer = Writer::default().shard_size(self.settings.max_shard_size).progress(progress);
        let blake3 = writer.weights(directory, tensors)?;
        let written = Checkpoint::open(directory)?;
        self.beside.write(directory)?;
        write_generation_config(directory, &config)?;
        complete_tokenizer(directory)?;
        if !config.is_stock() {
            for (name, text) in code::FILES {
                write_file_atomically(&directory.join(name), text.as_bytes())?;
            }
        }
        if let Some(lineage) = &self.lineage {
            Lineage { blake3: Some(blake3.clone()), ..lineage.clone() }.write(directory)?;
        }
        let card = Card {
            settings: &self.settings,
            config: &config,
            lineage: self.lineage.as_ref(),
            parameters: parameter_count(&written)?,
            hash: &blake3,
            has_tokenizer: has_tokenizer(directory),
            has_plan: directory.join("plan.txt").is_file() || directory.join("plan.json").is_file(),
        };
        Ok(write_file_atomically(&directory.join("README.md"), card.to_string().as_bytes())?)
    }
}

fn config_json(config: &T5Config, dtype: Option<Dtype>) -> Map<String, Value> {
    let mut json = config.to_json_beside(dtype);
    // Left by the program that wrote the original file.
    for key in ["_name_or_path", "transformers_version"] {
        json.shift_remove(key);
    }
    // At the end, whatever the original file says.
    let dtype = json.shift_remove("torch_dtype");
    if !config.is_stock() {
        json.insert("auto_map".into(), code::auto_map());
    }
    json.extend(dtype.map(|dtype| ("torch_dtype".to_owned(), dtype)));
    json
}

/// What the configuration implies, unless the checkpoint has settings of its own.
fn write_generation_config(directory: &Path, config: &T5Config) -> Result<()> {
    let path = directory.join(GENERATION_CONFIG);
    if path.is_file() {
        return Ok(());
    }
    // Without the file, transformers would take its keys from `config.json`; with it, it takes none from there.
    let config = config.to_json();
    let names = GENERATION.iter().filter(|key| !matches!(key.treatment, Treatment::Immaterial { .. }));
    let values = names.filter_map(|key| Some((key.name.to_owned(), config.get(key.name)?.clone())));
    let settings: Map<String, Value> = values.collect();
    write_json(&path, &settings)
}

/// Makes sure that `AutoTokenizer` finds the tokenizer, if there is one, whatever the model's type.
fn complete_tokenizer(directory: &Path) -> Result<()> {
    let Some(tokenizer) = tokenizer_of(directory)? else { return Ok(()) };
    let path = directory.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(tokenizer.save(directory)?);
    }
    let config: Map<String, Value> = fusion_core::json::read(&path)?;
    let mut complete = config.clone();
    let class = complete.entry("tokenizer_class").or_insert_with(|| tokenizer.class().into());
    if class == "PreTrainedTokenizerFast" {
        // Without these, transformers 4 returns `token_type_ids` as well, which its T5 refuses.
        let names = || json!(["input_ids", "attention_mask"]);
        complete.entry("model_input_names").or_insert_with(names);
    }
    if complete != config {
        write_json(&path, &complete)?;
    }
    Ok(())
}
