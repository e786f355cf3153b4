//! Exports checkpoints for users of transformers: a directory to load from or to upload.

mod card;
mod code;
mod history;
mod weights;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use card::Card;
use fusion_core::Dtype;
use fusion_core::atomic::write_file_atomically;
use fusion_core::checkpoint::{Checkpoint, LazyTensor, Progress, Writer};
use fusion_core::lineage::Lineage;
use serde_json::{Map, Value, json};
use t5_model::T5Config;

use super::{copy_files, copy_tokenizer, known_lineage, parameter_count, tokenizer_of, write_directory};
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
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// Files that are copied if present.
const COPIED: [&str; 2] = ["plan.json", "plan.txt"];

impl<'a> Export<'a> {
    /// Checks the weights' headers against the configuration, and their hash against the lineage's.
    pub fn new(checkpoint: &'a Checkpoint, settings: ExportSettings) -> Result<Self> {
        let config = T5Config::of_checkpoint(checkpoint)?;
        weights::check(checkpoint, &config)?;
        let mut warnings = Vec::new();
        let mut lineage = known_lineage(checkpoint, None, &mut warnings)?;
        lineage.iter_mut().for_each(history::hide_paths);
        Ok(Export { checkpoint, config, lineage, settings, warnings })
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
        let from = self.checkpoint.directory();
        let config = weights::portable(&self.config);
        write_json(&directory.join("config.json"), &self.config_json(&config)?)?;
        let writer = Writer::default().shard_size(self.settings.max_shard_size).progress(progress);
        let blake3 = writer.weights(directory, tensors)?;
        let written = Checkpoint::open(directory)?;
        self.write_generation_config(directory, &config)?;
        let has_tokenizer = write_tokenizer(from, directory)?;
        if !config.is_stock() {
            for (name, text) in code::FILES {
                write_file_atomically(&directory.join(name), text.as_bytes())?;
            }
        }
        copy_files(&COPIED, from, directory)?;
        if let Some(lineage) = &self.lineage {
            Lineage { blake3: Some(blake3.clone()), ..lineage.clone() }.write(directory)?;
        }
        let card = Card {
            settings: &self.settings,
            config: &config,
            lineage: self.lineage.as_ref(),
            parameters: parameter_count(&written)?,
            hash: &blake3,
            has_tokenizer,
            has_plan: directory.join("plan.txt").is_file() || directory.join("plan.json").is_file(),
        };
        Ok(write_file_atomically(&directory.join("README.md"), card.to_string().as_bytes())?)
    }

    fn config_json(&self, config: &T5Config) -> Result<Map<String, Value>> {
        let mut json = config.to_json();
        // Left by the program that wrote the original file.
        for key in ["_name_or_path", "transformers_version", "dtype", "torch_dtype"] {
            json.shift_remove(key);
        }
        if !config.is_stock() {
            json.insert("auto_map".into(), code::auto_map());
        }
        if let Some(dtype) = weights::common_type(self.checkpoint, &self.config, self.settings.dtype)? {
            json.insert("torch_dtype".into(), dtype.into());
        }
        Ok(json)
    }

    /// Writes the checkpoint's own, or what its configuration implies.
    fn write_generation_config(&self, directory: &Path, config: &T5Config) -> Result<()> {
        const NAME: &str = "generation_config.json";
        if self.checkpoint.directory().join(NAME).is_file() {
            return copy_files(&[NAME], self.checkpoint.directory(), directory);
        }
        let ids = json!({
            "decoder_start_token_id": config.decoder_start_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
        });
        write_json(&directory.join(NAME), &ids)
    }
}

/// Copies the checkpoint's tokenizer, and makes sure that `AutoTokenizer` finds it whatever the model's type.
/// Returns whether there is one.
fn write_tokenizer(from: &Path, directory: &Path) -> Result<bool> {
    let Some(tokenizer) = tokenizer_of(from)? else { return Ok(false) };
    copy_tokenizer(from, directory)?;
    let path = directory.join("tokenizer_config.json");
    if !path.is_file() {
        tokenizer.save(directory)?;
        return Ok(true);
    }
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: Map<String, Value> = serde_json::from_slice(&text)
        .with_context(|| format!("cannot read {}", from.join("tokenizer_config.json").display()))?;
    let mut complete = config.clone();
    let class = complete.entry("tokenizer_class").or_insert_with(|| "T5Tokenizer".into());
    if class == "PreTrainedTokenizerFast" {
        // Without these, transformers 4 returns `token_type_ids` as well, which its T5 refuses.
        let names = || json!(["input_ids", "attention_mask"]);
        complete.entry("model_input_names").or_insert_with(names);
    }
    if complete != config {
        write_json(&path, &complete)?;
    }
    Ok(true)
}
