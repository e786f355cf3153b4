//! Checkpoints in Hugging Face's layout: `config.json`, the weights as `model.safetensors` or as shards with an index
//! (`pytorch_model.bin` can be read, too), tokenizer files, and this project's `lineage.json`.

mod file;
mod format;
mod hash;
mod index;
mod layout;
mod lazy;
mod pieces;
mod write;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use safetensors::tensor::TensorView;
use serde_json::{Map, Value};

pub use file::TensorFile;
pub(crate) use hash::PIECE;
use hash::hash_source;
pub use index::ShardIndex;
pub(crate) use lazy::whole;
pub use lazy::{LazyTensor, Producer, common_type};
pub use pieces::Progress;
pub(crate) use pieces::writing_memory;
pub use write::{WeightType, Writer};

use crate::lineage::{History, Lineage};
use crate::{Error, Result, TensorSource, json};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const CONFIG: &str = "config.json";

/// An open checkpoint. Its weights are mapped into memory; nothing is read until it is needed.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    config: Map<String, Value>,
    files: Vec<TensorFile>,
    /// The file that holds each tensor.
    tensors: BTreeMap<String, usize>,
    /// Tensors with another name than in their file, by their own.
    renamed: BTreeMap<String, String>,
    /// The hash of the weights, once it is known.
    hash: OnceLock<String>,
}

impl Checkpoint {
    /// Opens a directory: reads the configuration and the headers of the weights.
    pub fn open(directory: &Path) -> Result<Self> {
        if !fs::metadata(directory).map_err(Error::io("open", directory))?.is_dir() {
            return Err(Error::NotADirectory { path: directory.into() });
        }
        let config_path = directory.join(CONFIG);
        if !config_path.exists() {
            return Err(Error::NoConfig { path: directory.into() });
        }
        let config = json::read(&config_path)?;
        let (files, tensors) = open_weights(directory)?;
        let (directory, renamed) = (directory.into(), BTreeMap::new());
        Ok(Checkpoint { directory, config, files, tensors, renamed, hash: OnceLock::new() })
    }

    /// Gives a tensor another name than it has in its file. The hash is that of the weights under this name.
    pub fn rename(&mut self, from: &str, to: &str) {
        if from != to
            && let Some(file) = self.tensors.remove(from)
        {
            let name = self.renamed.remove(from).unwrap_or_else(|| from.into());
            self.tensors.insert(to.into(), file);
            self.renamed.insert(to.into(), name);
            self.hash = OnceLock::new();
        }
    }

    /// The checkpoint's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// `config.json` as it is, with unknown keys and in the order of the file.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// `lineage.json` as it is, if there is one; see [`Checkpoint::history`].
    pub fn lineage(&self) -> Result<Option<Lineage>> {
        Lineage::read(&self.directory)
    }

    /// The history of these weights: what `lineage.json` says, unless it was written for other weights. If it names a
    /// hash, this reads all weights.
    pub fn history(&self) -> Result<History> {
        Ok(match Lineage::read(&self.directory)? {
            None => History::Unknown,
            Some(Lineage { blake3: Some(of), .. }) if of != self.blake3()? => History::OfOtherWeights,
            Some(lineage) => History::Known(Box::new(lineage)),
        })
    }

    /// A hash of the weights, in hexadecimal: BLAKE3 of every tensor's name, type, shape and BLAKE3, in the order of the
    /// names. It does not depend on how the tensors are distributed over files. The first call reads all weights.
    pub fn blake3(&self) -> Result<String> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash.clone());
        }
        let hash = hash_source(self)?;
        Ok(self.hash.get_or_init(|| hash).clone())
    }
}

impl TensorSource for Checkpoint {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn view(&self, name: &str) -> Result<TensorView<'_>> {
        match self.tensors.get(name).and_then(|&file| self.files.get(file)) {
            Some(file) => file.view(self.renamed.get(name).map_or(name, String::as_str)),
            None => Err(Error::no_tensor(self.directory.display(), name)),
        }
    }
}

/// The file names of weights, in one file and as an index of shards; earlier ones are preferred.
const WEIGHT_FILES: [(&str, &str); 2] =
    [(WEIGHTS, INDEX), ("pytorch_model.bin", "pytorch_model.bin.index.json")];

/// The files of a checkpoint, and which of them holds each tensor. A single file is preferred to an index.
fn open_weights(directory: &Path) -> Result<(Vec<TensorFile>, BTreeMap<String, usize>)> {
    for (single, index) in WEIGHT_FILES.map(|(single, index)| (directory.join(single), directory.join(index)))
    {
        if single.exists() {
            let file = TensorFile::open(&single)?;
            let tensors = file.names().into_iter().map(|name| (name, 0)).collect();
            return Ok((vec![file], tensors));
        }
        if index.exists() {
            return open_shards(directory, &index);
        }
    }
    Err(Error::NoWeights {
        path: directory.into(),
        looked_for: "model.safetensors[.index.json], pytorch_model.bin[.index.json]",
    })
}

fn open_shards(directory: &Path, path: &Path) -> Result<(Vec<TensorFile>, BTreeMap<String, usize>)> {
    let index = ShardIndex::read(path)?;
    let names: Vec<&str> = index.files().into_iter().collect();
    let files =
        names.iter().map(|name| TensorFile::open(&directory.join(name))).collect::<Result<Vec<_>>>()?;
    let mut tensors = BTreeMap::new();
    for (tensor, name) in index.tensors() {
        let number = names.binary_search(&name).unwrap_or(names.len());
        if !files.get(number).is_some_and(|file| file.contains(tensor)) {
            return Err(Error::NotInShard { path: path.into(), tensor: tensor.into(), file: name.into() });
        }
        tensors.insert(tensor.into(), number);
    }
    Ok((files, tensors))
}
